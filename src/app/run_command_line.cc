// SPDX-License-Identifier: Apache-2.0
// From words to an exit status. Reading comes first, so that a mistyped option costs no threads.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <memory>

#include "app/drivers.h"
#include "app/image_command_options.h"
#include "app/interruptible.h"
#include "app/key_file.h"
#include "app/program.h"
#include "app/volume_settings.h"
#include "async/on_cancel.h"
#include "async/scope.h"
#include "base/diagnostics.h"
#include "base/limits.h"
#include "control/process_world.h"
#include "control/secret_table.h"
#include "control/standard_streams.h"
#include "control/stop_signals.h"
#include "luks/inner_encryption.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitSignal = 128;  // plus the signal, as a shell reports it

void print_error(const Diagnostics& diagnostics, const Error& error) {
  fprintf(stderr, "ringdisk: %s\n", diagnostics.describe(error).c_str());
}

int print_text(const std::string& text) {
  Console console;
  console.write(text);
  Result<void> flushed = console.flush();
  if (flushed.ok()) return 0;
  print_error(Diagnostics(), flushed.error());
  return kExitFailed;
}

int unknown_command(std::string_view name) {
  fprintf(stderr, "ringdisk: there is no command '%.*s'; 'ringdisk help' lists them\n",
          static_cast<int>(name.size()), name.data());
  return kExitFailed;
}

Result<ProcessWorldOptions> world_options(const Command& command, const Arguments& arguments,
                                          const Environment& environment,
                                          Diagnostics& diagnostics) {
  ProcessWorldOptions options;
  ASSIGN_OR_RETURN(uint64_t threads,
                   size_argument(arguments, "threads", 0, 1, limits::kShardsMax, diagnostics));
  options.runtime.shards = static_cast<uint32_t>(threads);
  if (command.one_shard) options.runtime.shards = 1;
  if (environment.loop == "uring") {
    options.runtime.loop = LoopKind::kUring;
  } else if (environment.loop == "epoll") {
    options.runtime.loop = LoopKind::kEpoll;
  } else if (!environment.loop.empty()) {
    return usage_error(diagnostics,
                       "RINGDISK_LOOP is uring or epoll, not '" + environment.loop + "'");
  }
  const size_t verbose = arguments.count("verbose");
  if (verbose > 0) options.log_level = verbose > 1 ? LogLevel::kDebug : LogLevel::kInfo;
  return options;
}

void allow_paths(OpenGate& gate, const Arguments& arguments, std::string_view from_environment) {
  for (std::string& directory : arguments.values("allow-path")) gate.allow_below(directory);
  while (!from_environment.empty()) {
    const size_t colon = from_environment.find(':');
    const std::string_view directory = from_environment.substr(0, colon);
    if (!directory.empty()) gate.allow_below(std::string(directory));
    from_environment.remove_prefix(colon == std::string_view::npos ? from_environment.size()
                                                                   : colon + 1);
  }
}

// How a command is told to stop. Made in main(), used on shard 0.
struct Stop {
  StopSignals signals;
  CancelSource stop, hurry;
  const std::array<CancelSource*, 2> sources = {&stop, &hurry};
  std::atomic<bool> is_stopped{false};
  StopOnCancel flag{stop.token(), is_stopped};

  Result<void> start(const Command& command) {
    RETURN_IF_ERROR(signals.start());
    RETURN_IF_ERROR(ignore_file_size_limit());
    if (command.stop_way == StopWay::kFailsRequests) return {};
    return ignore_broken_pipes();
  }
};

// Read before anything blocks signals or starts threads: a pipe may keep us waiting.
Result<void> read_secrets(SecretTable& secrets, const Arguments& arguments,
                          Diagnostics& diagnostics) {
  const Blocking token = Blocking::allowed_here();
  for (const std::string& text : arguments.values("object")) {
    RETURN_IF_ERROR(secrets.add_object(token, text));
  }
  ASSIGN_OR_RETURN(const KeyFilePart part, key_file_part(arguments, "", diagnostics));
  if (std::optional<std::string> path = arguments.value("key-file")) {
    RETURN_IF_ERROR(secrets.set_key_file(token, *path, part));
  }
  if (secrets.has_shown_secret()) {
    fprintf(stderr,
            "ringdisk: a secret on the command line can be seen by every user of this machine; "
            "write it to a file and say file=PATH\n");
  }
  return {};
}

// A command beside the watch for stop signals, which ends with it.
Task<int> run_watched(Scope& scope, const Command& command, Program& program,
                      const Arguments& arguments, Stop& stop) {
  const std::span<CancelSource* const> sources(stop.sources);
  const size_t count = command.stop_way == StopWay::kDrains ? 2 : 1;
  scope.spawn(stop.signals.watch(Shard::current(), sources.first(count), scope.token()));
  Result<int> exit_status = co_await command.run(program, arguments).result();
  scope.cancel();
  co_return std::move(exit_status);
}

// The end of a command that ended with `error`, where a signal is the cause: of the process, at
// once. All that the command opened is closed; what still computes (runtime/abandonable.h) is for
// nobody, and its memory goes with the process.
Error end_interrupted(const Command& command, Console& console, int signal, Error error) {
  if (signal == 0 || error.kind != ErrorKind::kCancelled) return error;
  if (Result<void> flushed = console.flush(); !flushed.ok()) return flushed.error();
  console.remark("ringdisk: " + std::string(command.name) + " was interrupted" +
                 std::string(command.when_interrupted) + "\n");
  _exit(kExitSignal + signal);
}

bool has_option(const Command& command, std::string_view key) {
  return std::ranges::any_of(command.options,
                             [key](const OptionSpec& option) { return option.key() == key; });
}

Result<int> run_in_world(const Command& command, const Arguments& arguments,
                         const Environment& environment, Diagnostics& diagnostics) {
  ASSIGN_OR_RETURN(ProcessWorldOptions options,
                   world_options(command, arguments, environment, diagnostics));
  ASSIGN_OR_RETURN(luks::VolumeSettings settings, volume_settings(arguments, diagnostics));
  SecretTable secrets(diagnostics);
  RETURN_IF_ERROR(read_secrets(secrets, arguments, diagnostics));
  Stop stop;
  settings.kdf_limits.stop = stop.stop.token();
  RETURN_IF_ERROR(stop.start(command));
  OpenGate gate(diagnostics);
  allow_paths(gate, arguments, environment.allow_path);
  const std::unique_ptr<DataEncryption> encryption = make_luks_encryption(settings);
  const bool offers_share = has_option(command, kForceShareOption.key());
  const Drivers all_drivers = make_drivers(*encryption, settings, offers_share);
  const Drivers drivers = command.stop_way == StopWay::kFailsRequests
                              ? interruptible_drivers(all_drivers, stop.is_stopped)
                              : all_drivers;
  const std::vector<std::unique_ptr<FormatAdmin>> admins =
      make_format_admins(*encryption, settings);
  std::vector<FormatAdmin*> admin_pointers;
  for (const auto& admin : admins) admin_pointers.push_back(admin.get());
  Console console;
  ProcessWorld process(options, diagnostics);
  RETURN_IF_ERROR(process.start());
  secrets.ask_at(kControllingTerminal, process.world().blocking, stop.is_stopped);
  Program program{process.world(), console,   drivers,    admin_pointers, gate,
                  environment,     stop.stop, stop.hurry, secrets};
  auto watched = [&](Scope& scope) {
    return run_watched(scope, command, program, arguments, stop);
  };
  auto root = [&](Shard&) { return with_scope(watched); };
  Result<int> exit_status = process.run(root);
  if (!exit_status.ok()) {
    return end_interrupted(command, console, stop.signals.received(), exit_status.error());
  }
  RETURN_IF_ERROR(console.flush());
  return exit_status;
}

// "-1G" at the end is a size, not options, where the command says so.
std::vector<std::string_view> marked_words(const Command& command,
                                           std::span<const std::string_view> words) {
  std::vector<std::string_view> marked(words.begin(), words.end());
  if (!command.last_word_is_name || marked.empty()) return marked;
  if (std::find(marked.begin(), marked.end(), "--") != marked.end()) return marked;
  const std::string_view last = marked.back();
  const bool is_number = last.size() > 1 && last[0] == '-' && last[1] >= '0' && last[1] <= '9';
  if (is_number) marked.insert(marked.end() - 1, "--");
  return marked;
}

int run_command(const Command& command, std::span<const std::string_view> words,
                const Environment& environment) {
  Diagnostics diagnostics;
  std::vector<OptionSpec> options(command.options.begin(), command.options.end());
  const std::span<const OptionSpec> global = global_options();
  options.insert(options.end(), global.begin(), global.end());
  Result<Arguments> arguments = parse_arguments(options, marked_words(command, words), diagnostics);
  if (!arguments.ok()) {
    print_error(diagnostics, arguments.error());
    fprintf(stderr, "Try 'ringdisk help %s'.\n", std::string(command.name).c_str());
    return kExitFailed;
  }
  if (arguments.value().has("help")) return print_text(help_text(command));
  Result<int> exit_status = run_in_world(command, arguments.value(), environment, diagnostics);
  if (exit_status.ok()) return exit_status.value();
  print_error(diagnostics, exit_status.error());
  return kExitFailed;
}

}  // namespace

int run_command_line(std::span<const std::string_view> words, const Environment& environment) {
  if (Result<void> occupied = occupy_standard_streams(); !occupied.ok()) {
    print_error(Diagnostics(), occupied.error());
    return kExitFailed;
  }
  if (words.empty()) {
    fprintf(stderr, "%s", help_text().c_str());
    return kExitFailed;
  }
  std::string_view name = words[0];
  const bool wants_help = name == "help" || name == "-h" || name == "--help";
  if (wants_help && words.size() < 2) return print_text(help_text());
  if (name == "version" || name == "-V" || name == "--version") return print_text(version_text());
  if (wants_help) name = words[1];
  for (const Command& command : all_commands()) {
    if (command.name != name) continue;
    if (wants_help) return print_text(help_text(command));
    return run_command(command, words.subspan(1), environment);
  }
  return unknown_command(name);
}

}  // namespace ringdisk
