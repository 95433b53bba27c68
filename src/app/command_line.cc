// SPDX-License-Identifier: Apache-2.0
// The parser: one walk over the words.
#include "app/command_line.h"

#include "base/diagnostics.h"
#include "block/options.h"

namespace ringdisk {

bool Arguments::has(std::string_view key) const { return options_.find(key) != options_.end(); }

size_t Arguments::count(std::string_view key) const {
  auto found = options_.find(key);
  return found == options_.end() ? 0 : found->second.size();
}

std::optional<std::string> Arguments::value(std::string_view key) const {
  auto found = options_.find(key);
  if (found == options_.end()) return std::nullopt;
  return found->second.back();
}

std::vector<std::string> Arguments::values(std::string_view key) const {
  auto found = options_.find(key);
  return found == options_.end() ? std::vector<std::string>() : found->second;
}

class ArgumentParser {
 public:
  ArgumentParser(std::span<const OptionSpec> options, std::span<const std::string_view> words,
                 Diagnostics& diagnostics)
      : options_(options), words_(words), diagnostics_(diagnostics) {}

  Result<Arguments> parse() {
    bool only_names = false;
    while (at_ < words_.size()) {
      const std::string_view word = words_[at_++];
      if (only_names || word.size() < 2 || word[0] != '-') {
        arguments_.names_.emplace_back(word);
      } else if (word == "--") {
        only_names = true;
      } else if (word[1] == '-') {
        RETURN_IF_ERROR(take_long(word.substr(2)));
      } else {
        RETURN_IF_ERROR(take_letters(word.substr(1)));
      }
    }
    return std::move(arguments_);
  }

 private:
  Result<void> take_long(std::string_view text) {
    const size_t equals = text.find('=');
    const std::string_view name = text.substr(0, equals);
    const OptionSpec* spec = find_name(name);
    if (!spec) return usage_error(diagnostics_, "unknown option '--" + std::string(name) + "'");
    const std::string shown = "--" + std::string(name);
    if (equals == std::string_view::npos) return take_value(*spec, shown);
    if (spec->value.empty()) return usage_error(diagnostics_, shown + " takes no value");
    add(*spec, text.substr(equals + 1));
    return {};
  }

  // "-pqf" "raw", "-pqfraw": flags, and the first one with a value takes the rest.
  Result<void> take_letters(std::string_view letters) {
    for (size_t i = 0; i < letters.size(); ++i) {
      const OptionSpec* spec = find_letter(letters[i]);
      const std::string shown = std::string("-") + letters[i];
      if (!spec) return usage_error(diagnostics_, "unknown option '" + shown + "'");
      if (!spec->value.empty() && i + 1 < letters.size()) {
        add(*spec, letters.substr(i + 1));
        return {};
      }
      RETURN_IF_ERROR(take_value(*spec, shown));
    }
    return {};
  }

  Result<void> take_value(const OptionSpec& spec, const std::string& shown) {
    if (spec.value.empty()) {
      add(spec, "on");
      return {};
    }
    if (at_ == words_.size()) {
      return usage_error(diagnostics_, shown + " needs a value: " + std::string(spec.value));
    }
    add(spec, words_[at_++]);
    return {};
  }

  void add(const OptionSpec& spec, std::string_view value) {
    arguments_.options_[std::string(spec.key())].emplace_back(value);
    arguments_.in_order_.emplace_back(spec.key(), value);
  }

  const OptionSpec* find_name(std::string_view name) const {
    for (const OptionSpec& spec : options_) {
      if (!name.empty() && spec.name == name) return &spec;
    }
    return nullptr;
  }
  const OptionSpec* find_letter(char letter) const {
    for (const OptionSpec& spec : options_) {
      if (spec.letter == letter) return &spec;
    }
    return nullptr;
  }

  std::span<const OptionSpec> options_;
  std::span<const std::string_view> words_;
  Diagnostics& diagnostics_;
  Arguments arguments_;
  size_t at_ = 0;
};

Result<Arguments> parse_arguments(std::span<const OptionSpec> options,
                                  std::span<const std::string_view> words,
                                  Diagnostics& diagnostics) {
  return ArgumentParser(options, words, diagnostics).parse();
}

Result<uint64_t> size_argument(const Arguments& arguments, std::string_view key, uint64_t otherwise,
                               uint64_t least, uint64_t most, Diagnostics& diagnostics) {
  const std::optional<std::string> text = arguments.value(key);
  if (!text) return otherwise;
  Result<uint64_t> size = parse_size(*text);
  const std::string shown = (key.size() == 1 ? "-" : "--") + std::string(key);
  if (!size.ok()) {
    return usage_error(diagnostics,
                       shown + " takes a number such as 4096, 64k or 2M, not '" + *text + "'");
  }
  if (size.value() < least || size.value() > most) {
    return usage_error(diagnostics, shown + " is between " + std::to_string(least) + " and " +
                                        std::to_string(most) + ", not " + *text);
  }
  return size;
}

Error usage_error(Diagnostics& diagnostics, std::string text) {
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "command line"), std::move(text));
}

}  // namespace ringdisk
