// SPDX-License-Identifier: Apache-2.0
// The words of --object, and base64.
#include "control/secret_option.h"

#include <optional>

#include "base/diagnostics.h"
#include "block/options.h"

namespace ringdisk {
namespace {

Error refuse(Diagnostics& diagnostics, std::string why) {
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "--object"), std::move(why));
}

Result<void> check_type(Options& options, std::string_view text, Diagnostics& diagnostics) {
  if (options.take("qom-type").value_or("") == "secret" || options.take("secret")) return {};
  return refuse(diagnostics, "--object " + std::string(text.substr(0, text.find_first_of(",={"))) +
                                 ": there are objects of one type: secret,id=ID,file=PATH");
}

Result<void> take_place(Options& options, SecretOption& secret, Diagnostics& diagnostics) {
  const std::optional<std::string> data = options.take("data"), file = options.take("file");
  if (data.has_value() == file.has_value()) {
    return refuse(diagnostics, "secret '" + secret.id + "' takes either file=PATH or data=TEXT");
  }
  secret.is_file = file.has_value();
  secret.value = secret.is_file ? *file : *data;
  return {};
}

// The six bits that a letter stands for; nullopt: it is none.
constexpr std::optional<uint32_t> bits_of(char letter) {
  const auto place = static_cast<uint8_t>(letter);
  if (letter >= 'A' && letter <= 'Z') return place - uint32_t{'A'};
  if (letter >= 'a' && letter <= 'z') return place - uint32_t{'a'} + 26;
  if (letter >= '0' && letter <= '9') return place - uint32_t{'0'} + 52;
  if (letter == '+') return 62;
  if (letter == '/') return 63;
  return std::nullopt;
}

// Letters and padding of a base64 text, taken one after the other.
class Base64Reader {
 public:
  explicit Base64Reader(MutableBytes target) : target_(target) {}

  bool take(char letter) {
    if (letter == '\n') return true;
    if (letter == '=') return ++padding_ <= 2;
    const std::optional<uint32_t> bits = bits_of(letter);
    if (!bits || padding_ != 0) return false;
    ++letters_;
    held_ = held_ << 6 | *bits;
    held_bits_ += 6;
    if (held_bits_ < 8) return true;
    held_bits_ -= 8;
    target_[length_++] = static_cast<std::byte>(held_ >> held_bits_);
    held_ &= (1U << held_bits_) - 1;
    return true;
  }
  // Whole groups of four, and no bits left over.
  bool is_whole() const {
    return (letters_ + padding_) % 4 == 0 && held_ == 0 && letters_ % 4 != 1;
  }
  size_t length() const { return length_; }

 private:
  MutableBytes target_;
  size_t letters_ = 0, padding_ = 0, length_ = 0;
  uint32_t held_ = 0, held_bits_ = 0;
};

}  // namespace

Result<SecretOption> parse_secret_option(std::string_view text, Diagnostics& diagnostics) {
  ASSIGN_OR_RETURN(Options options, Options::parse(text, diagnostics));
  RETURN_IF_ERROR(check_type(options, text, diagnostics));
  SecretOption secret;
  secret.id = options.take("id").value_or("");
  if (secret.id.empty()) return refuse(diagnostics, "a secret needs a name: id=sec0");
  RETURN_IF_ERROR(take_place(options, secret, diagnostics));
  const std::string format = options.take("format").value_or("raw");
  if (format != "raw" && format != "base64") {
    return refuse(diagnostics, "the format of secret '" + secret.id + "' is raw or base64, not '" +
                                   format + "'");
  }
  secret.is_base64 = format == "base64";
  if (options.has("keyid") || options.has("iv")) {
    return refuse(diagnostics, "secret '" + secret.id +
                                   "' is encrypted itself (keyid, iv), which is not supported");
  }
  RETURN_IF_ERROR(options.check_all_taken("secret", diagnostics));
  return secret;
}

Result<SecretBytes> decode_base64(Bytes text) {
  ASSIGN_OR_RETURN(SecretBytes decoded, SecretBytes::make(text.size() / 4 * 3 + 3));
  Base64Reader reader(decoded.bytes());
  for (char letter : as_text(text)) {
    if (!reader.take(letter)) return Error::of(ErrorKind::kInvalid, "decode base64");
  }
  if (!reader.is_whole()) return Error::of(ErrorKind::kInvalid, "decode base64");
  decoded.shorten(reader.length());
  return decoded;
}

}  // namespace ringdisk
