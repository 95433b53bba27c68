// SPDX-License-Identifier: Apache-2.0
// The words of --object, and base64.
#include "control/secret_option.h"

#include <algorithm>
#include <optional>

#include "base/diagnostics.h"
#include "block/options.h"
#include "crypto/base64.h"

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

Result<SecretBytes> decode_base64_secret(Bytes text) {
  ASSIGN_OR_RETURN(SecretBytes letters, SecretBytes::copy_of(text));
  const MutableBytes all = letters.bytes();
  const auto end = std::remove(all.begin(), all.end(), std::byte{'\n'});
  letters.shorten(static_cast<size_t>(end - all.begin()));
  ASSIGN_OR_RETURN(SecretBytes decoded, SecretBytes::make(base64_bytes_max(letters.size())));
  const std::optional<size_t> size = decode_base64(as_text(letters.bytes()), decoded.bytes());
  if (!size) return Error::of(ErrorKind::kInvalid, "decode base64");
  decoded.shorten(*size);
  return decoded;
}

}  // namespace ringdisk
