// SPDX-License-Identifier: Apache-2.0
// JsonText: writes JSON as qemu-img lays it out (four spaces a level, "key": value, one value a
// line), so that what people compare or grep stays the same. It only writes; values come in the
// order of the calls. Text is UTF-8; what is not ASCII is written as \uXXXX, as qemu-img does, and
// what is not UTF-8 either as \ufffd.
//
//   JsonText json;
//   json.begin_object();
//   json.key("format"), json.text("raw");
//   json.end_object();                       // {\n    "format": "raw"\n}
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ringdisk {

class JsonText {
 public:
  void begin_object() { begin('{'); }
  void end_object() { end('}'); }
  void begin_array() { begin('['); }
  void end_array() { end(']'); }

  // In an object, before each value.
  void key(std::string_view name);

  void text(std::string_view value);
  void number(uint64_t value);
  void boolean(bool value);

  const std::string& result() const { return result_; }

 private:
  void begin(char bracket);
  void end(char bracket);
  // What stands before a value: a comma after the one before, a new line, indentation.
  void begin_value();
  void new_line();

  std::string result_;
  size_t depth_ = 0;
  bool is_first_ = true;  // nothing stands in the innermost brackets yet
  bool after_key_ = false;
};

// `value` in quotation marks, escaped.
std::string json_quoted(std::string_view value);

}  // namespace ringdisk
