// SPDX-License-Identifier: Apache-2.0
// ringdisk snapshot: lists, creates, applies and deletes the internal snapshots of an image.
#include <array>

#include "app/image_command_options.h"
#include "app/images.h"
#include "app/info_text.h"
#include "app/program.h"
#include "base/diagnostics.h"
#include "base/limits.h"
#include "runtime/wall_clock.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 8> kOptions = {{
    {'l', "", "", "list the snapshots (the default)"},
    {'c', "", "NAME", "create a snapshot of the disk as it is"},
    {'a', "", "NAME", "apply a snapshot: the disk becomes what it was then"},
    {'d', "", "NAME", "delete a snapshot"},
    kImageFormatOption,
    kQuietOption,
    {'U', "force-share", "", "with -l: do not insist on locks"},
    kImageOptsOption,
}};

Result<std::optional<SnapshotEdit>> edit_asked_for(const Arguments& arguments,
                                                   Diagnostics& diagnostics) {
  using Action = SnapshotEdit::Action;
  constexpr std::pair<std::string_view, Action> kActions[] = {
      {"c", Action::kCreate}, {"a", Action::kApply}, {"d", Action::kDelete}};
  std::optional<SnapshotEdit> edit;
  int asked = arguments.has("l") ? 1 : 0;
  for (const auto& [key, action] : kActions) {
    if (!arguments.has(key)) continue;
    ++asked;
    edit.emplace();
    edit->action = action;
    edit->name = *arguments.value(key);
  }
  if (asked > 1) return usage_error(diagnostics, "-l, -c, -a and -d exclude each other");
  if (edit && arguments.has("force-share")) {
    return usage_error(diagnostics, "-U goes with -l alone: a change needs the image's lock");
  }
  if (!edit || edit->action != Action::kCreate) return edit;
  if (edit->name.empty() || edit->name.size() > limits::kSnapshotNameBytesMax) {
    return usage_error(diagnostics, "a snapshot's name has 1 to " +
                                        std::to_string(limits::kSnapshotNameBytesMax) + " bytes");
  }
  const WallTime now = read_wall_clock();
  edit->date_seconds = now.seconds;
  edit->date_nanoseconds = now.nanoseconds;
  return edit;
}

Task<void> list(Program& program, const Arguments& arguments, ImageName name) {
  OpenMode mode;
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  mode.share = arguments.has("force-share");
  ImageDescription described = co_await describe_image(program, std::move(name), mode);
  if (!arguments.has("q")) program.console.write(snapshots_as_text(described.snapshots));
}

Task<int> run(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  std::string word = co_await single_name(arguments, diagnostics);
  std::optional<SnapshotEdit> edit = co_await edit_asked_for(arguments, diagnostics);
  ImageName name = co_await source_argument(arguments, word, diagnostics);
  if (!edit) {
    co_await list(program, arguments, std::move(name));
    co_return 0;
  }
  OpenMode mode;
  mode.no_backing = true;
  ImageFile image = co_await open_image_file(program, std::move(name), mode);
  Graph graph = program.graph();
  co_await image.admin->edit_snapshots(graph, std::move(image.storage), *edit);
  co_return 0;
}

}  // namespace

Command snapshot_command() {
  Command command;
  command.name = "snapshot";
  command.summary = "list, create, apply or delete internal snapshots";
  command.synopsis = "[-l | -c NAME | -a NAME | -d NAME] [-f FMT] [-q] [-U] [--image-opts] FILE";
  command.text =
      "Works on the snapshots inside the image FILE, which no other program may be using. NAME is\n"
      "a snapshot's id or name. Names may repeat, and one may be another's id: then -a takes the\n"
      "id, -d the name (the first of it), as qemu-img does. What is read out of one is\n"
      "'convert -l NAME'.\n";
  command.examples =
      "  ringdisk snapshot -c before-upgrade disk.qcow2\n"
      "  ringdisk snapshot disk.qcow2\n"
      "  ringdisk snapshot -a before-upgrade disk.qcow2\n";
  command.options = kOptions;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
