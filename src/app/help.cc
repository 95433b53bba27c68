// SPDX-License-Identifier: Apache-2.0
// The list of commands and the text of --help, made from the tables that the parser reads, so that
// neither can forget an option.
#include <algorithm>
#include <array>

#include "app/program.h"

namespace ringdisk {
namespace {

constexpr std::string_view kVersion = "0.1.0";

constexpr std::array<OptionSpec, 12> kGlobalOptions = {{
    {'h', "help", "", "show this text"},
    {'v', "verbose", "", "say more on standard error; twice: still more"},
    {0, "threads", "N", "use N cores (default: all that the process may use)"},
    {0, "allow-path", "DIR", "images may name backing and data files below DIR (repeatable)"},
    {0, "cpu-features", "KERNEL", "AES by auto (default), none (OpenSSL), aesni, vaes256, vaes512"},
    {0, "object", "SECRET",
     "secret,id=ID,file=PATH[,format=base64]: for key-secret=ID (repeatable)"},
    {0, "kdf-memory-max", "SIZE", "memory that a LUKS header may ask for, a derivation (4G)"},
    {0, "kdf-work-max", "SIZE", "likewise, over all passes of Argon2 (64G)"},
    {0, "kdf-iterations-max", "N", "iterations of PBKDF2 that it may ask for (100000000)"},
    {0, "key-file", "PATH", "passphrase of images without key-secret: a file, fd:N, or - (stdin)"},
    {0, "keyfile-size", "BYTES", "so many bytes of that file (default: all)"},
    {0, "keyfile-offset", "BYTES", "from there on"},
}};

std::string option_line(const OptionSpec& option) {
  std::string left = "  ";
  left += option.letter ? std::string("-") + option.letter : std::string("  ");
  if (!option.name.empty()) {
    left += option.letter ? ", --" : "  --";
    left += option.name;
  }
  if (!option.value.empty()) {
    left += option.name.empty() ? " " : "=";
    left += option.value;
  }
  constexpr size_t kColumn = 30;
  left.resize(std::max(left.size() + 2, kColumn), ' ');
  return left + std::string(option.help) + "\n";
}

}  // namespace

std::span<const OptionSpec> global_options() { return kGlobalOptions; }

std::vector<Command> all_commands() {
  return {create_command(),  info_command(),  measure_command(),  convert_command(),
          map_command(),     check_command(), resize_command(),   commit_command(),
          rebase_command(),  amend_command(), snapshot_command(), bitmap_command(),
          compact_command(), luks_command(),  serve_command(),    bench_command()};
}

std::string version_text() { return "ringdisk " + std::string(kVersion) + "\n"; }

std::string help_text() {
  std::string text =
      "usage: ringdisk COMMAND [OPTIONS] ...\n"
      "\n"
      "Disk images on every core: creates, converts, describes, checks and serves them.\n"
      "\n"
      "commands:\n";
  for (const Command& command : all_commands()) {
    std::string line = "  " + std::string(command.name);
    line.resize(12, ' ');
    text += line + std::string(command.summary) + "\n";
  }
  text +=
      "  help      describe a command: ringdisk help convert\n"
      "  version   print the version\n"
      "\n"
      "environment:\n"
      "  RINGDISK_ALLOW_PATH=DIR:DIR   like --allow-path\n"
      "  RINGDISK_LOOP=uring|epoll     insist on one way of doing I/O\n";
  return text;
}

std::string help_text(const Command& command) {
  std::string text = "usage: ringdisk " + std::string(command.name) + " " +
                     std::string(command.synopsis) + "\n\n" + std::string(command.text) +
                     "\noptions:\n";
  for (const OptionSpec& option : command.options) text += option_line(option);
  for (const OptionSpec& option : kGlobalOptions) text += option_line(option);
  text += "\nexamples:\n" + std::string(command.examples);
  return text;
}

}  // namespace ringdisk
