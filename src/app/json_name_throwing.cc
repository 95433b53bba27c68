// SPDX-License-Identifier: Apache-2.0
// The one file of app/ that includes nlohmann-json.
#include <nlohmann/json.hpp>

#include "app/command_line.h"
#include "app/json_name.h"

namespace ringdisk {
namespace {

using nlohmann::json;

constexpr unsigned kDepthMax = 16;

std::string joined(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

bool is_backing(std::string_view path) { return path == "backing" || path.ends_with(".backing"); }

// False: something that is no value of an option.
bool flatten(const json& value, const std::string& path, unsigned depth, Options& options) {
  if (depth > kDepthMax) return false;
  if (value.is_object()) {
    for (const auto& [key, member] : value.items()) {
      if (!flatten(member, joined(path, key), depth + 1, options)) return false;
    }
    return true;
  }
  if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) {
      if (!flatten(value[i], joined(path, std::to_string(i)), depth + 1, options)) return false;
    }
    return true;
  }
  if (value.is_null() && is_backing(path)) {
    options.set(path, "");  // none, which descriptions write as backing=
    return true;
  }
  if (value.is_null() || path.empty()) return false;
  if (value.is_string()) {
    options.set(path, value.get<std::string>());
  } else if (value.is_boolean()) {
    options.set(path, value.get<bool>() ? "on" : "off");
  } else {
    options.set(path, value.dump());
  }
  return true;
}

bool parse_into(std::string_view text, Options& options) {
  try {
    const json description = json::parse(text.begin(), text.end());
    return description.is_object() && flatten(description, "", 0, options);
  } catch (const json::exception&) {
    return false;
  }
}

}  // namespace

Result<Options> parse_json_description(std::string_view text, Diagnostics& diagnostics) {
  Options options;
  if (parse_into(text, options)) return options;
  return usage_error(diagnostics,
                     "json: needs an object such as {\"driver\": \"qcow2\", "
                     "\"file\": {\"filename\": \"disk.qcow2\"}}");
}

}  // namespace ringdisk
