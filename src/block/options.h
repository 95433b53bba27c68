// SPDX-License-Identifier: Apache-2.0
// How a user describes an image: a file name with -f, or options
// `driver=qcow2,file.filename=disk.qcow2,file.cache=none` (qemu-img's --image-opts). Options are a
// flat map of dotted keys; a driver takes the ones it knows, and what is left over is an error that
// names the key.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"

namespace ringdisk {

class Diagnostics;

// How the page cache is used, as qemu-img's -t and -T: what is given by name is `direct` and
// `flush`.
enum class CacheMode : uint8_t {
  kWriteback,     // page cache; flush makes durable
  kNone,          // O_DIRECT; flush makes durable
  kWritethrough,  // page cache; every write is durable when it completes
  kDirectsync,    // O_DIRECT, and every write is durable
  kUnsafe,        // page cache; flush does nothing
};
Result<CacheMode> parse_cache_mode(std::string_view text);
std::string_view name_of(CacheMode mode);

class Options {
 public:
  Options() = default;
  // "driver=qcow2,file.filename=a,,b.img": commas in values are doubled, as qemu-img has it; a bare
  // word `x` is x=on.
  static Result<Options> parse(std::string_view text, Diagnostics& diagnostics);

  void set(std::string key, std::string value) { values_[std::move(key)] = std::move(value); }
  bool has(std::string_view key) const;
  std::optional<std::string> get(std::string_view key) const;
  // The value, marked as used.
  std::optional<std::string> take(std::string_view key);
  Result<bool> take_bool(std::string_view key, bool otherwise, Diagnostics& diagnostics);
  Result<uint64_t> take_size(std::string_view key, uint64_t otherwise, Diagnostics& diagnostics);
  // All keys that begin with "prefix.", without it; they are marked as used. What is refused of
  // them is named as the user wrote it, with all that stood before it.
  Options take_group(std::string_view prefix);
  // That, for whoever refuses something himself: "encrypt.", or empty.
  const std::string& prefix() const { return prefix_; }
  // An error that names the first key nobody took: what `of` (a driver's name) does not know.
  Result<void> check_all_taken(std::string_view of, Diagnostics& diagnostics) const;
  bool empty() const { return values_.empty(); }
  const std::map<std::string, std::string, std::less<>>& values() const { return values_; }

 private:
  std::string whole(std::string_view key) const { return prefix_ + std::string(key); }

  std::map<std::string, std::string, std::less<>> values_;
  std::string prefix_;
};

// "64k", "1.5G", ".5T", "512", "0x200": as qemu-img: suffixes b k M G T P E, either case, powers of
// 1024; a bare number is bytes.
Result<uint64_t> parse_size(std::string_view text);
// "1 GiB", "512 B", "1.5 MiB": as qemu-img info prints sizes (%0.3g).
std::string human_size(uint64_t bytes);

}  // namespace ringdisk
