// SPDX-License-Identifier: Apache-2.0
// ringdisk create: a new, empty image.
#include <array>

#include "app/create_image.h"
#include "app/image_command_options.h"
#include "app/images.h"
#include "app/program.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 6> kOptions = {{
    {'f', "", "FMT", "format of the new image (default: raw)"},
    {'o', "", "OPTIONS", "options of the format, a=b,c=d; '-o help' lists them"},
    {'b', "", "FILE", "backing image: what the new image does not hold is read from it"},
    {'F', "", "FMT", "format of the backing image"},
    {'u', "", "", "do not look at the backing image (it may not exist yet)"},
    kQuietOption,
}};

// The size as it is written on the command line; empty: it is not.
std::string asked_size(const Arguments& arguments, NewImage& image) {
  std::string text = image.options.take("size").value_or("");
  return arguments.names().size() > 1 ? arguments.names()[1] : text;
}

// The size to create: as given, or that of the backing image.
Task<ByteCount> size_of_new(Program& program, const Arguments& arguments, NewImage& image) {
  Diagnostics& diagnostics = program.diagnostics();
  if (arguments.names().size() > 1 && image.options.has("size")) {
    co_return usage_error(diagnostics, image.filename + ": the size is given twice: behind the " +
                                           "name, and in -o size=");
  }
  const std::string text = asked_size(arguments, image);
  if (!text.empty()) {
    Result<uint64_t> size = parse_size(text);
    if (size.ok()) co_return ByteCount(size.value());
    co_return usage_error(diagnostics, image.filename + ": invalid image size '" + text +
                                           "'; write a number with k, M, G, T, P or E behind it");
  }
  if (!image.admin->has_disk(image.options)) co_return ByteCount(0);
  if (image.backing_name.empty() || image.backing_is_trusted) {
    co_return usage_error(diagnostics, image.filename + ": creating an image needs a size");
  }
  co_return co_await backing_size(program, image).result();
}

Result<NewImage> read_arguments(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  if (arguments.names().empty() || arguments.names().size() > 2) {
    return usage_error(diagnostics, "expecting an image file name and a size");
  }
  const std::string format = arguments.value("f").value_or("raw");
  ASSIGN_OR_RETURN(ImageName name,
                   parse_image_name(arguments.names().front(), format, false, diagnostics));
  NewImage image;
  image.filename = name.filename;
  ASSIGN_OR_RETURN(image.admin, program.find_admin(format));
  image.backing_is_trusted = arguments.has("u");
  ASSIGN_OR_RETURN(image.options,
                   new_image_options(arguments.values("o"), image.filename, diagnostics));
  if (image.options.has("compression_level")) {
    return usage_error(diagnostics, "compression_level is for 'convert -c'; no image records it");
  }
  RETURN_IF_ERROR(take_backing(arguments, "b", image, diagnostics));
  return image;
}

Task<int> run(Program& program, const Arguments& arguments) {
  bool was_help = co_await print_option_help(program, arguments, "f");
  if (was_help) co_return 0;
  NewImage image = co_await read_arguments(program, arguments);
  const bool must_exist = !image.backing_name.empty() && !image.backing_is_trusted;
  if (must_exist) co_await backing_size(program, image);
  image.size = co_await size_of_new(program, arguments, image);
  if (!arguments.has("q")) {
    program.console.write(formatting_line(image));
    co_await program.console.flush();
  }
  co_await create_image(program, image);
  co_return 0;
}

}  // namespace

Command create_command() {
  Command command;
  command.name = "create";
  command.summary = "make a new, empty image";
  command.synopsis = "[-q] [-f FMT] [-b BACKING [-F FMT]] [-u] [-o OPTIONS] FILE [SIZE]";
  command.text =
      "Makes the image FILE of SIZE bytes (suffixes k, M, G, T, P, E: powers of 1024), in place\n"
      "of what was there. With a backing image SIZE may be left out: it is the backing image's; "
      "so\n"
      "it may for -o detached-header=on, which makes a LUKS header whose disk is another file.\n";
  command.examples =
      "  ringdisk create disk.raw 20G\n"
      "  ringdisk create -f qcow2 -o cluster_size=128k disk.qcow2 20G\n"
      "  ringdisk create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n";
  command.options = kOptions;
  command.one_shard = true;
  command.stop_way = StopWay::kFailsRequests;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
