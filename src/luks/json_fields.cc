// SPDX-License-Identifier: Apache-2.0
// One function a kind of field.
#include "luks/json_fields.h"

#include "crypto/base64.h"

namespace ringdisk::luks {

Error JsonFields::wrong(std::string_view key, std::string_view why) const {
  return refusal_.corrupt(subject_ + ": '" + prefix_ + std::string(key) + "' " + std::string(why));
}

Result<std::string> JsonFields::text(std::string_view key) const {
  const Json* value = object_.find(key);
  if (value == nullptr || !value->as_text()) return wrong(key, "is missing or no text");
  if (value->as_text()->empty()) return wrong(key, "is empty");
  return std::string(*value->as_text());
}

Result<uint64_t> JsonFields::number(std::string_view key, uint64_t least, uint64_t most) const {
  const Json* value = object_.find(key);
  const std::optional<uint64_t> number = value ? value->as_number() : std::nullopt;
  if (!number) return wrong(key, "is missing or no whole number");
  if (*number < least || *number > most) {
    return wrong(key, "is " + std::to_string(*number) + "; it must be " + std::to_string(least) +
                          " to " + std::to_string(most));
  }
  return *number;
}

Result<uint64_t> JsonFields::number_in_text(std::string_view key) const {
  ASSIGN_OR_RETURN(const std::string digits, text(key));
  const std::optional<uint64_t> number = parse_decimal(digits);
  if (!number) return wrong(key, "is no number of 64 bits");
  return *number;
}

Result<std::vector<std::byte>> JsonFields::base64(std::string_view key, size_t bytes_min,
                                                  size_t bytes_max) const {
  ASSIGN_OR_RETURN(const std::string letters, text(key));
  std::optional<std::vector<std::byte>> bytes = decode_base64(letters);
  if (!bytes) return wrong(key, "is no base64");
  if (bytes->size() < bytes_min || bytes->size() > bytes_max) {
    return wrong(key, "has " + std::to_string(bytes->size()) + " bytes; it must have " +
                          std::to_string(bytes_min) + " to " + std::to_string(bytes_max));
  }
  return std::move(*bytes);
}

Result<JsonFields> JsonFields::object(std::string_view key) const {
  const Json* value = object_.find(key);
  if (value == nullptr || !value->is(Json::Kind::kObject)) {
    return wrong(key, "is missing or no object");
  }
  return JsonFields(*value, subject_, prefix_ + std::string(key) + ".", refusal_);
}

Result<std::vector<std::string>> JsonFields::texts(std::string_view key, bool required) const {
  std::vector<std::string> texts;
  const Json* value = object_.find(key);
  if (value == nullptr && !required) return texts;
  if (value == nullptr || !value->is(Json::Kind::kArray)) {
    return wrong(key, "is missing or no array");
  }
  for (const Json& item : value->items) {
    if (!item.as_text()) return wrong(key, "holds what is no text");
    texts.emplace_back(*item.as_text());
  }
  return texts;
}

}  // namespace ringdisk::luks
