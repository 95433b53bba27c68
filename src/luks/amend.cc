// SPDX-License-Identifier: Apache-2.0
// Words to key slots.
#include "luks/amend.h"

#include "block/format_admin.h"
#include "luks/keys.h"

namespace ringdisk::luks {
namespace {

constexpr uint64_t kSlotNumberMax = 31;

struct Amendment {
  bool activates = false;
  bool is_forced = false;  // a slot that is in use, or the last one, may go
  std::optional<std::string> new_secret, old_secret;
  std::string secret;  // key-secret
  std::string prefix;  // of all these words: "encrypt.", or nothing
  std::optional<uint32_t> slot;
  KdfChoice kdf;
};

Result<Amendment> parse(Options& options, const Refusal& refusal) {
  Diagnostics& diagnostics = refusal.diagnostics();
  Amendment amendment;
  const std::string& prefix = amendment.prefix = options.prefix();
  options.take("format");  // encrypt.format=luks, which it is
  const std::string state = options.take("state").value_or("");
  if (state != "active" && state != "inactive") {
    return refusal.invalid("say what becomes of the key slot: " + prefix + "state=active or " +
                           prefix + "state=inactive");
  }
  amendment.activates = state == "active";
  amendment.new_secret = options.take("new-secret");
  amendment.old_secret = options.take("old-secret");
  amendment.secret = options.take("key-secret").value_or("");
  amendment.is_forced = options.take(kForceAmendment).has_value();
  if (options.has("keyslot")) {
    ASSIGN_OR_RETURN(uint64_t slot, options.take_size("keyslot", 0, diagnostics));
    if (slot > kSlotNumberMax)
      return refusal.invalid("there is no key slot " + std::to_string(slot));
    amendment.slot = static_cast<uint32_t>(slot);
  }
  ASSIGN_OR_RETURN(uint64_t milliseconds,
                   options.take_size("iter-time", amendment.kdf.milliseconds, diagnostics));
  if (milliseconds == 0 || milliseconds > 3'600'000) {
    return refusal.invalid(prefix + "iter-time is a number of milliseconds, up to an hour");
  }
  amendment.kdf.milliseconds = static_cast<uint32_t>(milliseconds);
  RETURN_IF_ERROR(options.check_all_taken("amending key slots", diagnostics));
  return amendment;
}

Result<void> judge(const Amendment& amendment, const Refusal& refusal) {
  const std::string& prefix = amendment.prefix;
  if (amendment.activates) {
    if (!amendment.new_secret) {
      return refusal.invalid(prefix + "state=active needs " + prefix + "new-secret=ID");
    }
    if (!amendment.old_secret) return {};
    return refusal.invalid(prefix + "old-secret is for " + prefix + "state=inactive");
  }
  if (amendment.new_secret) {
    return refusal.invalid(prefix + "new-secret is for " + prefix + "state=active");
  }
  if (amendment.old_secret || amendment.slot) return {};
  return refusal.invalid(prefix + "state=inactive needs " + prefix + "old-secret=ID or " + prefix +
                         "keyslot=N, which say what is to go");
}

// Amends one volume; lives in the frame of amend_volume.
class Amender {
 public:
  Amender(Graph& graph, HeaderWindow window, const Amendment& amendment, KdfLimits limits,
          std::string image)
      : graph_(graph),
        window_(window),
        amendment_(amendment),
        limits_(limits),
        image_(std::move(image)) {}

  Task<void> add();
  Task<void> remove();

 private:
  Task<SharedSecret> find(std::string id, bool is_new);
  Unlock by(const SecretBytes& passphrase) const {
    Unlock with;
    with.passphrase = passphrase.bytes();
    with.limits = limits_;
    return with;
  }
  Task<void> remove_all_of(const Unlock& with);
  Task<std::vector<uint32_t>> slots_opened_by(const Unlock& with);

  Graph& graph_;
  const HeaderWindow window_;
  const Amendment& amendment_;
  const KdfLimits limits_;
  const std::string image_;
};

Task<SharedSecret> Amender::find(std::string id, bool is_new) {
  SecretWish wish;
  wish.id = std::move(id);
  wish.image = image_;
  wish.is_new = is_new;
  wish.option = amendment_.prefix + "key-secret";
  wish.place = SecretPlace::kOptions;
  co_return co_await graph_.find_secret(std::move(wish)).result();
}

Task<void> Amender::add() {
  const SharedSecret secret = co_await find(amendment_.secret, false);
  const SharedSecret fresh = co_await find(*amendment_.new_secret, true);
  Unlock with = by(*secret);
  NewKey key;
  key.passphrase = fresh->bytes();
  key.slot = amendment_.slot;
  key.kdf = amendment_.kdf;
  key.kdf.stop = limits_.stop;
  key.may_replace = amendment_.is_forced;
  co_await add_key(graph_.world(), window_, with, key);
}

// All that the passphrase opens, as qemu-img does; the last slot there is only when forced.
Task<void> Amender::remove_all_of(const Unlock& with) {
  const std::vector<uint32_t> opened = co_await slots_opened_by(with);
  if (opened.empty()) {
    co_await fail(window_.refusal(graph_.world())(ErrorKind::kDenied,
                                                  "no key slot opens with the old secret"));
  }
  for (uint32_t slot : opened) {
    const std::optional<Unlock> no_proof;
    co_await kill_slot(graph_.world(), window_, slot, no_proof, amendment_.is_forced);
  }
}

Task<std::vector<uint32_t>> Amender::slots_opened_by(const Unlock& with) {
  const World& world = graph_.world();
  const LuksHeader header = co_await read_header(world, window_);
  const VolumeFacts facts = co_await supported_facts(world, window_, header);
  std::vector<uint32_t> opened;
  for (const KeySlot& slot : facts.slots) {
    Unlock one = with;
    one.slot = slot.number;
    Result<LuksVolume> volume = co_await unlock(world, window_, facts, one).result();
    if (volume.ok()) {
      opened.push_back(slot.number);
    } else if (volume.error().kind != ErrorKind::kDenied) {
      co_return volume.error();
    }
  }
  if (!opened.empty() && opened.size() == facts.slots.size() && !amendment_.is_forced) {
    co_return window_.refusal(world)(
        ErrorKind::kDenied,
        "all key slots open with the old secret; removing them would lose the "
        "disk for ever; '--force' does it all the same");
  }
  co_return std::move(opened);
}

Task<void> Amender::remove() {
  const std::optional<Unlock> no_proof;
  if (!amendment_.old_secret) {
    co_await kill_slot(graph_.world(), window_, *amendment_.slot, no_proof, amendment_.is_forced);
    co_return;
  }
  const SharedSecret secret = co_await find(*amendment_.old_secret, false);
  Unlock with = by(*secret);
  if (!amendment_.slot) {
    co_await remove_all_of(with);
    co_return;
  }
  with.slot = amendment_.slot;
  co_await remove_key(graph_.world(), window_, with, amendment_.is_forced);
}

}  // namespace

OptionLines amend_option_lines() {
  return {{"iter-time=<num>", "Time to spend in PBKDF in milliseconds (default: 2000)"},
          {"key-secret=<str>", "ID of the secret that opens the image now"},
          {"keyslot=<num>", "Select a single keyslot to modify explicitly"},
          {"new-secret=<str>", "ID of the secret that is to open it, too"},
          {"old-secret=<str>", "Select all keyslots that match this password"},
          {"state=<str>", "Select new state of affected keyslots (active/inactive)"}};
}

Task<void> amend_volume(Graph& graph, HeaderWindow window, std::string image, KdfLimits limits,
                        Options options) {
  const Refusal refusal = window.refusal(graph.world());
  const Amendment amendment = co_await parse(options, refusal);
  co_await judge(amendment, refusal);
  Amender amender(graph, window, amendment, limits, std::move(image));
  if (amendment.activates) {
    co_await amender.add();
  } else {
    co_await amender.remove();
  }
}

}  // namespace ringdisk::luks
