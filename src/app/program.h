// SPDX-License-Identifier: Apache-2.0
// What every command is given, and what a command is. main() makes a Program once the command line
// has been read and the shards run; it outlives the command. Commands live on shard 0.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/command_line.h"
#include "app/console.h"
#include "async/cancel.h"
#include "async/task.h"
#include "block/format_admin.h"
#include "block/graph.h"
#include "control/secret_table.h"
#include "runtime/world.h"

namespace ringdisk {

// What the environment says, read in main() alone.
struct Environment {
  std::string notify_socket;  // NOTIFY_SOCKET
  std::string allow_path;     // RINGDISK_ALLOW_PATH: directories, ':' between them
  std::string loop;           // RINGDISK_LOOP: "uring", "epoll" or empty
};

struct Program {
  const World& world;
  Console& console;
  const Drivers& drivers;
  std::span<FormatAdmin* const> admins;
  const OpenGate& gate;
  const Environment& environment;
  // Cancelled on shard 0 by stop signals, as the command's StopWay says.
  CancelSource& stop;
  CancelSource& hurry;
  SecretTable& secrets;

  Diagnostics& diagnostics() const { return world.diagnostics; }
  Graph graph() const { return Graph(world, drivers, gate, &secrets); }
  // The format called `name`; an error that lists the formats there are.
  Result<FormatAdmin*> find_admin(std::string_view name) const;
};

// What stop signals (SIGINT, SIGTERM, SIGHUP) do to a command. One more than it takes ends the
// process.
enum class StopWay : uint8_t {
  kCancels,        // Program::stop is cancelled, and with it a job; who has none finishes
  kFailsRequests,  // likewise, and requests to storages fail from then on (app/interruptible.h)
  kDrains,         // as kCancels; a second signal cancels Program::hurry
};

struct Command {
  std::string_view name;
  std::string_view summary;   // one line, for the list of commands
  std::string_view synopsis;  // what stands behind the name
  std::string_view text;      // what it does; ends with a line feed
  std::string_view examples;  // lines, each indented; ends with a line feed
  std::span<const OptionSpec> options;
  bool one_shard = false;          // it has no use for more
  bool last_word_is_name = false;  // even where it begins with '-' (a size: -1G)
  StopWay stop_way = StopWay::kCancels;
  // What is said besides of one that a signal ended: ": the list is not complete".
  std::string_view when_interrupted;
  // Gives the exit status. Its results are on the console, its errors are returned.
  Task<int> (*run)(Program& program, const Arguments& arguments);
};

// Each in the file of its name.
Command amend_command();
Command bench_command();
Command bitmap_command();
Command check_command();
Command commit_command();
Command compact_command();
Command convert_command();
Command create_command();
Command info_command();
Command luks_command();
Command map_command();
Command measure_command();
Command rebase_command();
Command resize_command();
Command serve_command();
Command snapshot_command();

// All commands, in the order of the help text.
std::vector<Command> all_commands();

// Options that every command takes: -h, -v, --threads, --allow-path, --object, --key-file and its
// parts.
std::span<const OptionSpec> global_options();

std::string help_text();
std::string help_text(const Command& command);
std::string version_text();

// The whole of main(): reads the command line, builds the world, runs the command, prints its
// error. Gives the exit status.
int run_command_line(std::span<const std::string_view> words, const Environment& environment);

}  // namespace ringdisk
