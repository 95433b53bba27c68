// SPDX-License-Identifier: Apache-2.0
// JsonFields: takes the fields of one JSON object of a header, each with its kind and bounds; the
// first that is wrong becomes the error, by name: "key slot 3: 'kdf.salt' is missing or no base64".
// Lives for one parse.
#pragma once

#include <string>
#include <vector>

#include "luks/json.h"
#include "luks/refusal.h"

namespace ringdisk::luks {

class JsonFields {
 public:
  // `subject` is how errors call the object ("key slot 3", "the configuration").
  JsonFields(const Json& object, std::string subject, const Refusal& refusal)
      : object_(object), subject_(std::move(subject)), refusal_(refusal) {}

  Result<std::string> text(std::string_view key) const;
  // A JSON number within [least, most].
  Result<uint64_t> number(std::string_view key, uint64_t least, uint64_t most) const;
  // A number of 64 bits, which LUKS2 writes as text.
  Result<uint64_t> number_in_text(std::string_view key) const;
  Result<std::vector<std::byte>> base64(std::string_view key, size_t bytes_min,
                                        size_t bytes_max) const;
  // An object within this one: its errors say "subject: 'key.name'".
  Result<JsonFields> object(std::string_view key) const;
  // An array of texts; empty where it is absent and not `required`.
  Result<std::vector<std::string>> texts(std::string_view key, bool required) const;

  bool has(std::string_view key) const { return object_.find(key) != nullptr; }
  Error wrong(std::string_view key, std::string_view why) const;

 private:
  JsonFields(const Json& object, std::string subject, std::string prefix, const Refusal& refusal)
      : object_(object),
        subject_(std::move(subject)),
        prefix_(std::move(prefix)),
        refusal_(refusal) {}

  const Json& object_;
  std::string subject_;
  std::string prefix_;  // "kdf."
  const Refusal& refusal_;
};

}  // namespace ringdisk::luks
