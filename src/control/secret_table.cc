// SPDX-License-Identifier: Apache-2.0
// Which secret is whose.
#include "control/secret_table.h"

#include "base/diagnostics.h"
#include "control/secret_file.h"
#include "control/secret_option.h"
#include "runtime/blocking_pool.h"

namespace ringdisk {

Result<void> SecretTable::add_object(Blocking token, std::string_view text) {
  ASSIGN_OR_RETURN(const SecretOption option, parse_secret_option(text, diagnostics_));
  if (by_id_.find(option.id) != by_id_.end()) {
    return diagnostics_.explain(Error::of(ErrorKind::kInvalid, "--object"),
                                "there are two secrets '" + option.id + "'");
  }
  has_shown_secret_ |= !option.is_file;
  Result<SecretBytes> secret = option.is_file ? read_secret_file(token, option.value, diagnostics_)
                                              : SecretBytes::copy_of(as_bytes(option.value));
  if (secret.ok() && option.is_base64) secret = decode_base64_secret(secret.value().bytes());
  if (!secret.ok() && secret.error().note == 0) {
    const bool is_text = secret.error().kind == ErrorKind::kInvalid;
    return diagnostics_.explain(
        secret.error(), "secret '" + option.id + "' " +
                            (is_text ? "is not base64" : "finds no memory that can be locked"));
  }
  if (!secret.ok()) return secret.error();
  by_id_[option.id] = std::make_shared<const SecretBytes>(std::move(secret).value());
  return {};
}

Result<void> SecretTable::set_key_file(Blocking token, const std::string& path, KeyFilePart part) {
  ASSIGN_OR_RETURN(SecretBytes secret, read_secret_file(token, path, diagnostics_, part));
  key_file_ = std::make_shared<const SecretBytes>(std::move(secret));
  return {};
}

Task<SharedSecret> SecretTable::find(SecretWish wish) {
  if (!wish.id.empty()) {
    auto found = by_id_.find(wish.id);
    if (found != by_id_.end()) co_return found->second;
    co_return diagnostics_.explain(Error::of(ErrorKind::kNotFound, "find secret"),
                                   wish.image + ": there is no secret '" + wish.id +
                                       "'; add --object secret,id=" + wish.id + ",file=PATH");
  }
  if (key_file_) co_return key_file_;
  auto answered = answers_.find(wish.image);
  if (answered != answers_.end()) co_return answered->second;
  Result<SharedSecret> answer = co_await ask(wish).result();
  if (!answer.ok()) co_return explain_silence(answer.error(), wish);
  answers_[wish.image] = answer.value();
  co_return std::move(answer);
}

Task<SecretBytes> SecretTable::ask_once(std::string question) {
  if (!pool_) co_return Error::of(ErrorKind::kNotFound, "ask for a passphrase");
  auto ask = [&](Blocking token) { return ask_at_terminal(token, terminal_, question, *stopped_); };
  co_return co_await run_blocking(*pool_, ask);
}

Task<bool> SecretTable::confirm(std::string question) {
  Result<SecretBytes> answer = co_await ask_once(question + " (type YES) ").result();
  if (answer.ok()) co_return as_text(std::as_const(answer.value()).bytes()) == "YES";
  if (answer.error().kind == ErrorKind::kInvalid) co_return false;  // nothing was entered
  co_return answer.error();
}

Task<SharedSecret> SecretTable::ask(const SecretWish& wish) {
  SecretBytes answer = co_await ask_once("Enter passphrase for " + wish.image + ": ");
  if (wish.is_new) {
    const SecretBytes again = co_await ask_once("Verify passphrase: ");
    if (!equal_in_constant_time(answer.bytes(), again.bytes())) {
      co_return diagnostics_.explain(Error::of(ErrorKind::kInvalid, "ask for a passphrase"),
                                     wish.image + ": the two passphrases differ");
    }
  }
  co_return std::make_shared<const SecretBytes>(std::move(answer));
}

static std::string way_to_name(const SecretWish& wish) {
  const std::string named = wish.option + "=sec0";
  switch (wish.place) {
    case SecretPlace::kDescription:
      return named + " in its description (--image-opts)";
    case SecretPlace::kOptions:
      return "-o " + named;
    case SecretPlace::kCommandLine:
      return "--" + named;
  }
  UNREACHABLE("all places are above");
}

Error SecretTable::explain_silence(const Error& error, const SecretWish& wish) {
  if (error.note != 0) return error;
  if (error.kind == ErrorKind::kInvalid) {
    return diagnostics_.explain(error, wish.image + ": no passphrase was entered");
  }
  if (error.kind != ErrorKind::kNotFound) return error;
  return diagnostics_.explain(
      error, wish.image + ": needs a passphrase, and there is no terminal to ask at; say " +
                 wish.key_file_option + " PATH, or --object secret,id=sec0,file=PATH and " +
                 way_to_name(wish));
}

}  // namespace ringdisk
