// SPDX-License-Identifier: Apache-2.0
// The one file that includes nlohmann-json for headers. Its parser calls back for every value (its
// own stack is on the heap, so depth costs no stack here); the tree is built beside it, within
// bounds. What it throws ends here.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "luks/json.h"

namespace ringdisk::luks {
namespace {

// Builds the tree. Lives for one parse.
class TreeBuilder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(Json()); }
  bool boolean(bool value) override {
    Json json;
    json.kind = Json::Kind::kBool;
    json.boolean = value;
    return add(std::move(json));
  }
  bool number_integer(number_integer_t value) override { return add_number(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    return add_number(std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& digits) override { return add_number(digits); }
  bool string(string_t& value) override { return add(Json::of_text(std::move(value))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    Json& object = *open_.back();
    if (object.find(name) != nullptr) return refuse(ErrorKind::kCorrupt);
    key_ = std::move(name);
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

  ErrorKind why() const { return why_; }
  Json take() { return std::move(root_); }

 private:
  bool refuse(ErrorKind why) {
    why_ = why;
    return false;
  }
  bool add_number(std::string digits) {
    Json json;
    json.kind = Json::Kind::kNumber;
    json.text = std::move(digits);
    return add(std::move(json));
  }
  bool add(Json value) { return place(std::move(value)) != nullptr; }
  bool open(Json value) {
    if (open_.size() >= kJsonDepthMax) return refuse(ErrorKind::kLimit);
    Json* placed = place(std::move(value));
    if (placed != nullptr) open_.push_back(placed);
    return placed != nullptr;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  // Where the value now is. Pointers in open_ stay right: only the innermost one grows.
  Json* place(Json value) {
    if (++values_ > kJsonValuesMax) {
      refuse(ErrorKind::kLimit);
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is(Json::Kind::kObject)) parent.keys.push_back(std::move(key_));
    parent.items.push_back(std::move(value));
    return &parent.items.back();
  }

  Json root_;
  std::vector<Json*> open_;
  std::string key_;
  size_t values_ = 0;
  ErrorKind why_ = ErrorKind::kInvalid;
};

}  // namespace

Result<Json> parse_json(std::string_view text) {
  TreeBuilder builder;
  bool works = false;
  try {
    works = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  } catch (const std::exception&) {
    works = false;
  }
  if (!works) return Error::of(builder.why(), "parse JSON");
  return builder.take();
}

}  // namespace ringdisk::luks
