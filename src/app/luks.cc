// SPDX-License-Identifier: Apache-2.0
// ringdisk luks: LUKS headers and their key slots, as cryptsetup's users know them, on files and
// block devices, without a device mapper and without root's rights.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "app/create_image.h"
#include "app/image_command_options.h"
#include "app/luks_dump.h"
#include "app/luks_request.h"
#include "app/program.h"
#include "app/volume_settings.h"
#include "base/diagnostics.h"
#include "block/close_after.h"
#include "control/secret_file.h"
#include "luks/backup.h"
#include "luks/config.h"
#include "runtime/blocking_pool.h"
#include "runtime/file_descriptor.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

using luks::HeaderWindow;
using luks::Unlock;

// One call of the command. Lives in run(), on shard 0.
struct LuksRun {
  Program& program;
  const Arguments& arguments;
  LuksRequest request;
  luks::KdfLimits kdf_limits;
  SharedSecret passphrase, new_passphrase, volume_key;

  const World& world() const { return program.world; }
  Error refuse(ErrorKind kind, const std::string& text) const {
    return program.diagnostics().explain(Error::of(kind, "luks"), text);
  }
  Unlock unlock() const {
    Unlock with;
    with.limits = kdf_limits;
    if (volume_key) with.volume_key = volume_key->bytes();
    if (passphrase) with.passphrase = passphrase->bytes();
    return with;
  }
  luks::NewKey new_key() const {
    luks::NewKey key;
    key.passphrase = new_passphrase->bytes();
    key.kdf = request.kdf;
    key.kdf.stop = kdf_limits.stop;
    return key;
  }
  void say(const std::string& text) const {
    if (!arguments.has("q")) program.console.write(text + "\n");
  }
};

// --- secrets

Task<SharedSecret> read_key_file(const LuksRun& run, std::string path, KeyFilePart part) {
  auto read = [&](Blocking token) {
    return read_secret_file(token, path, run.program.diagnostics(), part);
  };
  SecretBytes secret = co_await run_blocking(run.world().blocking, read);
  co_return std::make_shared<const SecretBytes>(std::move(secret));
}

Task<void> find_volume_key(LuksRun& run) {
  const std::optional<std::string> path = run.arguments.value("volume-key-file");
  if (!path) co_return;
  const KeyFilePart all;
  run.volume_key = co_await read_key_file(run, *path, all);
  if (!run.volume_key->empty()) co_return;
  co_await fail(run.refuse(ErrorKind::kInvalid, *path + ": holds no volume key; it is empty"));
}

// What opens the volume; of a new one, what is going to.
Task<void> find_passphrase(LuksRun& run, bool is_new, std::string whose) {
  SecretWish wish;
  wish.id = run.arguments.value("key-secret").value_or("");
  wish.image = std::move(whose);
  wish.place = SecretPlace::kCommandLine;
  wish.is_new = is_new;
  run.passphrase = co_await run.program.secrets.find(wish);
}

Task<void> find_new_passphrase(LuksRun& run) {
  if (std::optional<std::string> path = run.arguments.value("new-key-file")) {
    run.new_passphrase = co_await read_key_file(run, *path, run.request.new_key_file);
    co_return;
  }
  SecretWish wish;
  wish.id = run.arguments.value("new-key-secret").value_or("");
  wish.image = "the new key slot of " + run.request.file;
  wish.option = "new-key-secret";
  wish.place = SecretPlace::kCommandLine;
  wish.key_file_option = "--new-key-file";
  wish.is_new = true;
  // Or the key file of the old passphrase would be taken for the new one.
  if (wish.id.empty() && run.arguments.has("key-file")) {
    co_await fail(run.refuse(ErrorKind::kInvalid,
                             run.request.file +
                                 ": the new passphrase is missing; say --new-key-file PATH, or "
                                 "--new-key-secret=ID"));
  }
  run.new_passphrase = co_await run.program.secrets.find(wish);
}

// Of a volume that is there. Where none is, or none that opens here, nobody is asked.
Task<void> find_secrets(LuksRun& run, HeaderWindow window) {
  const LuksAction action = run.request.action;
  const luks::LuksHeader header = co_await read_header(run.world(), window);
  co_await supported_facts(run.world(), window, header);
  co_await find_volume_key(run);
  const bool kills = action == LuksAction::kKillSlot;
  if (kills && run.request.force) co_return;
  const bool takes_key = action == LuksAction::kAddKey || action == LuksAction::kTestKey;
  const bool by_key = run.volume_key != nullptr && takes_key;
  std::string whose = kills ? "another key slot of " + run.request.file : run.request.file;
  if (!by_key) co_await find_passphrase(run, false, std::move(whose));
  if (action == LuksAction::kAddKey || action == LuksAction::kChangeKey) {
    co_await find_new_passphrase(run);
  }
}

// --- storages

Options file_options(const std::string& path) {
  Options options;
  options.set("driver", "file");
  options.set("filename", path);
  return options;
}

// use(window) -> Task<void> on the header's file, which is closed afterwards.
template <class F>
Task<void> on_file(LuksRun& run, std::string path, bool read_only, F& use) {
  Graph graph = run.program.graph();
  OpenMode mode;
  mode.read_only = read_only;
  mode.share = read_only && run.arguments.has(kForceShareOption.key());
  std::unique_ptr<SharedStorage> storage = co_await graph.open_storage(file_options(path), mode);
  Result<std::unique_ptr<StorageAccess>> access =
      co_await StorageAccess::open(*storage, Shard::current()).result();
  Result<void> used;
  if (access.ok()) {
    const HeaderWindow window(*access.value());
    used = co_await use(window).result();
    access.value().reset();
  } else {
    used = access.error();
  }
  co_await close_after(std::move(used), *storage->node);
}

// A new file that only its owner may read: it holds key slots.
Task<void> make_private_file(LuksRun& run, std::string path) {
  auto make = [&](Blocking) -> Result<void> {
    const FileDescriptor made(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
    if (made.get() >= 0) return {};
    const Error error = Error::from_errno(errno, "create");
    const bool is_there = error.errno_value == EEXIST;
    return run.program.diagnostics().explain(
        error, path + ": " + errno_text(error.errno_value) +
                   (is_there ? "; a backup replaces no file, so name another one" : ""));
  };
  co_await run_blocking(run.world().blocking, make);
}

// use(window) -> Task<void> on a new file of that name, of which nothing stays if that fails.
template <class F>
Task<void> on_new_file(LuksRun& run, std::string path, F& use) {
  co_await make_private_file(run, path);
  Result<void> used = co_await on_file(run, path, false, use).result();
  if (!used.ok()) co_await remove_leftover(run.program, path);
  co_await std::move(used);
}

// --- actions

// Whether something lies there that a header would destroy.
Task<void> check_overwritable(LuksRun& run, HeaderWindow window) {
  if (run.request.force) co_return;
  std::array<std::byte, 4096> front = {};
  const size_t there = static_cast<size_t>(std::min<uint64_t>(front.size(), window.size().value()));
  co_await window.read(run.world(), HostOffset(0), MutableBytes(front).first(there));
  std::string found;
  for (const FormatDriver& format : run.program.drivers.formats) {
    const bool is_it = format.probe && format.probe(Bytes(front).first(there)) == 100;
    if (is_it) found = format.name;
  }
  if (luks::has_luks_magic(front)) found = "LUKS";
  if (found.empty()) co_return;
  co_await fail(window.refusal(run.world())(
      ErrorKind::kDenied, "there is a header of the format '" + found +
                              "' already; '--force' overwrites it, and its data is lost"));
}

Task<void> check_room(LuksRun& run, HeaderWindow window, luks::FormatPlaces places) {
  const bool has_data = !run.request.format.is_detached;
  if (!has_data || window.size() > places.payload_offset) co_return;
  co_await fail(window.refusal(run.world())(
      ErrorKind::kNoSpace, "the file has " + std::to_string(window.size().value()) +
                               " bytes, but encrypted data would begin at " +
                               std::to_string(places.payload_offset.value()) +
                               "; make it larger first"));
}

Task<void> do_format(LuksRun& run, HeaderWindow window) {
  luks::FormatRequest& format = run.request.format;
  format.kdf.stop = run.kdf_limits.stop;
  co_await find_volume_key(run);
  if (run.volume_key) {
    format.volume_key = run.volume_key->bytes();
    if (!run.arguments.has("key-size")) format.key_bytes = run.volume_key->size();
  }
  const luks::FormatPlaces places = co_await plan_format(format, window.refusal(run.world()));
  co_await check_overwritable(run, window);
  co_await check_room(run, window, places);
  co_await find_passphrase(run, true, run.request.file);
  format.passphrase = run.passphrase->bytes();
  luks::LuksVolume volume = co_await format_luks(run.world(), window, format);
  run.say("LUKS" + std::to_string(format.version) + " volume " + volume.uuid);
}

Task<void> do_add(LuksRun& run, HeaderWindow window) {
  co_await find_secrets(run, window);
  luks::NewKey key = run.new_key();
  key.slot = run.request.slot;
  const uint32_t slot = co_await add_key(run.world(), window, run.unlock(), key);
  run.say("key slot " + std::to_string(slot) + " added");
}

Task<void> do_change(LuksRun& run, HeaderWindow window) {
  co_await find_secrets(run, window);
  Unlock with = run.unlock();
  with.slot = run.request.slot;
  const uint32_t slot = co_await change_key(run.world(), window, with, run.new_key());
  run.say("key slot " + std::to_string(slot) + " changed");
}

Task<void> do_remove(LuksRun& run, HeaderWindow window) {
  co_await find_secrets(run, window);
  Unlock with = run.unlock();
  with.slot = run.request.slot;
  const uint32_t slot = co_await remove_key(run.world(), window, with, run.request.force);
  run.say("key slot " + std::to_string(slot) + " removed");
}

Task<void> do_kill(LuksRun& run, HeaderWindow window) {
  co_await find_secrets(run, window);
  std::optional<Unlock> proof;
  if (!run.request.force) proof = run.unlock();
  const uint32_t slot = *run.request.slot;
  co_await kill_slot(run.world(), window, slot, proof, run.request.force);
  run.say("key slot " + std::to_string(slot) + " removed");
}

// Exit status 0: it opens.
Task<void> do_test(LuksRun& run, HeaderWindow window) {
  co_await find_secrets(run, window);
  Unlock with = run.unlock();
  with.slot = run.request.slot;
  luks::LuksVolume volume = co_await unlock(run.world(), window, with);
  run.say(volume.key_slot < 0 ? "this is the volume key"
                              : "key slot " + std::to_string(volume.key_slot) + " opens");
}

Task<void> do_config(LuksRun& run, HeaderWindow window) {
  co_await change_config(run.world(), window, run.request.config);
  run.say("header changed");
}

// The one action after which nobody reads the disk, so it is asked about even of those who may.
Task<void> do_erase(LuksRun& run, HeaderWindow window) {
  const luks::LuksHeader header = co_await read_header(run.world(), window);
  const std::string what = "erases all key slots of " + run.request.header_file() +
                           ", and without a backup of the header nobody reads the disk any more";
  if (!run.request.yes) {
    Result<bool> confirmed = co_await run.program.secrets.confirm("This " + what + ".").result();
    if (!confirmed.ok() && confirmed.error().kind == ErrorKind::kNotFound) {
      co_await fail(run.refuse(ErrorKind::kDenied, "luks erase " + what + "; '--yes' does it"));
    }
    const bool is_yes = co_await std::move(confirmed);
    if (!is_yes) co_await fail(run.refuse(ErrorKind::kDenied, "nothing was erased"));
  }
  const uint32_t removed = co_await erase_keys(run.world(), window);
  run.say(std::to_string(removed) + " key slots erased");
}

Task<void> do_dump(LuksRun& run, HeaderWindow window) {
  luks::LuksHeader header = co_await read_header(run.world(), window);
  const std::string& name = run.request.header_file();
  run.program.console.write(run.request.as_json ? luks_as_json(header, name)
                                                : luks_as_text(header, name));
}

Task<void> do_backup(LuksRun& run, HeaderWindow window) {
  // Nothing is made for what has no header.
  luks::LuksHeader header = co_await read_header(run.world(), window);
  auto copy = [&](HeaderWindow target) { return backup_header(run.world(), window, target); };
  co_await on_new_file(run, run.request.backup, copy);
  run.say("header of " + header.uuid() + " written to " + run.request.backup);
}

Task<void> do_restore(LuksRun& run, HeaderWindow window) {
  auto copy = [&](HeaderWindow backup) {
    return restore_header(run.world(), backup, window, run.request.force);
  };
  co_await on_file(run, run.request.backup, true, copy);
  run.say("header restored from " + run.request.backup);
}

Task<void> perform(LuksRun& run, HeaderWindow window) {
  switch (run.request.action) {
    case LuksAction::kFormat:
      return do_format(run, window);
    case LuksAction::kAddKey:
      return do_add(run, window);
    case LuksAction::kChangeKey:
      return do_change(run, window);
    case LuksAction::kRemoveKey:
      return do_remove(run, window);
    case LuksAction::kKillSlot:
      return do_kill(run, window);
    case LuksAction::kTestKey:
      return do_test(run, window);
    case LuksAction::kConfig:
      return do_config(run, window);
    case LuksAction::kErase:
      return do_erase(run, window);
    case LuksAction::kDump:
      return do_dump(run, window);
    case LuksAction::kHeaderBackup:
      return do_backup(run, window);
    case LuksAction::kHeaderRestore:
      return do_restore(run, window);
  }
  UNREACHABLE("all actions are above");
}

// Data that has its header elsewhere is not written, so that nothing else would notice.
Task<void> check_data_of_detached(LuksRun& run) {
  const LuksRequest& request = run.request;
  if (request.action != LuksAction::kFormat || request.header.empty()) co_return;
  auto look = [&](Blocking) -> Result<bool> {
    struct stat data {
    }, header{};
    if (stat(request.file.c_str(), &data) != 0) {
      const int number = errno;
      return run.program.diagnostics().explain(Error::from_errno(number, "open"),
                                               request.file + ": " + errno_text(number));
    }
    const bool has_header = stat(request.header.c_str(), &header) == 0;
    return has_header && data.st_dev == header.st_dev && data.st_ino == header.st_ino;
  };
  const bool is_same = co_await run_blocking(run.world().blocking, look);
  if (!is_same) co_return;
  co_await fail(run.refuse(ErrorKind::kInvalid,
                           request.file +
                               ": is its own header's file, and writing the data would destroy "
                               "the header; leave '--header' away, or name another file"));
}

// A detached header that is not there yet is made.
Task<bool> makes_header_file(LuksRun& run) {
  if (run.request.action != LuksAction::kFormat || run.request.header.empty()) co_return false;
  auto is_missing = [&](Blocking) -> Result<bool> {
    return access(run.request.header.c_str(), F_OK) != 0;
  };
  const bool missing = co_await run_blocking(run.world().blocking, is_missing);
  co_return missing;
}

Task<int> run(Program& program, const Arguments& arguments) {
  LuksRequest request = co_await read_luks_request(arguments, program.diagnostics());
  luks::VolumeSettings settings = co_await volume_settings(arguments, program.diagnostics());
  settings.kdf_limits.stop = program.stop.token();
  LuksRun luks_run{program, arguments, std::move(request), settings.kdf_limits, nullptr,
                   nullptr, nullptr};
  const bool read_only = reads_only(luks_run.request.action);
  auto use = [&](HeaderWindow window) { return perform(luks_run, window); };
  const std::string file = luks_run.request.header_file();
  co_await check_data_of_detached(luks_run);
  const bool is_new = co_await makes_header_file(luks_run);
  if (is_new) {
    co_await on_new_file(luks_run, file, use);
  } else {
    co_await on_file(luks_run, file, read_only, use);
  }
  co_return 0;
}

}  // namespace

Command luks_command() {
  Command command;
  command.name = "luks";
  command.summary = "make LUKS headers, and change their key slots";
  command.synopsis =
      "format [--type=luks1|luks2] [...] FILE | add-key FILE | change-key FILE |\n"
      "                remove-key FILE | kill-slot FILE N | test-key FILE |\n"
      "                dump [--output=human|json] FILE | erase [--yes] FILE |\n"
      "                config [--label=TEXT] [--subsystem=TEXT] [--uuid=UUID]\n"
      "                       [-S N --priority=prefer|normal|ignore] FILE |\n"
      "                header-backup|header-restore --header-backup-file=PATH FILE";
  command.text =
      "Works on the LUKS header of FILE, a file or a block device, which no other program may be\n"
      "using (but for dump, test-key and header-backup with -U); with --header=PATH on a header\n"
      "that is kept apart from its data. cryptsetup's names of the actions (luksFormat,\n"
      "luksAddKey, ...) are understood, too.\n"
      "\n"
      "Passphrases come from --key-file and --new-key-file, from --object secrets, or are asked "
      "for.\n"
      "At every moment some passphrase opens the volume: what is new is on the disk before what "
      "is\n"
      "old goes. The last key slot is only removed with --force; kill-slot wants a passphrase of\n"
      "another slot, or --force. test-key says which slot a passphrase opens, and changes "
      "nothing.\n"
      "erase removes them all, for disks that are to be given away.\n";
  command.examples =
      "  ringdisk luks format --key-file key disk.luks\n"
      "  ringdisk luks add-key --key-file key --new-key-file other disk.luks\n"
      "  ringdisk luks dump --output=json disk.luks\n";
  command.options = luks_options();
  command.one_shard = true;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
