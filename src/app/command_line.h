// SPDX-License-Identifier: Apache-2.0
// The command line of one command, in qemu-img's manner: options and file names in any order, "-f
// raw" and "-fraw", "--output json" and "--output=json", flags together ("-pq"), "--" before what
// only looks like an option. docs/decisions/0010-command-line.md says why this is our own.
//
//   constexpr OptionSpec kOptions[] = {{'f', "", "FMT", "format of the image"}, …};
//   ASSIGN_OR_RETURN(Arguments arguments, parse_arguments(kOptions, words, diagnostics));
//   arguments.value("f").value_or("raw");
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace ringdisk {

class Diagnostics;

struct OptionSpec {
  char letter;             // 0: none
  std::string_view name;   // "output"; empty: none
  std::string_view value;  // how help calls its value ("FMT"); empty: a flag
  std::string_view help;   // one line

  // What Arguments calls it: the name, or the letter where it has none.
  std::string_view key() const { return name.empty() ? std::string_view(&letter, 1) : name; }
};

// What the user wrote, each option under its key.
class Arguments {
 public:
  bool has(std::string_view key) const;
  size_t count(std::string_view key) const;
  // The last one given.
  std::optional<std::string> value(std::string_view key) const;
  std::vector<std::string> values(std::string_view key) const;
  const std::vector<std::string>& names() const { return names_; }
  // All options, key and value, for those of which it matters which came first.
  const std::vector<std::pair<std::string, std::string>>& in_order() const { return in_order_; }

 private:
  friend class ArgumentParser;
  std::map<std::string, std::vector<std::string>, std::less<>> options_;
  std::vector<std::pair<std::string, std::string>> in_order_;
  std::vector<std::string> names_;  // what is no option, in order
};

Result<Arguments> parse_arguments(std::span<const OptionSpec> options,
                                  std::span<const std::string_view> words,
                                  Diagnostics& diagnostics);

// A number or a size ("64k") given with option `key`, within [least, most]; `otherwise` where it is
// absent. Errors name the option.
Result<uint64_t> size_argument(const Arguments& arguments, std::string_view key, uint64_t otherwise,
                               uint64_t least, uint64_t most, Diagnostics& diagnostics);

// An error about the command line itself.
Error usage_error(Diagnostics& diagnostics, std::string text);

}  // namespace ringdisk
