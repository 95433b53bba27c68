// SPDX-License-Identifier: Apache-2.0
// For tests of headers: volumes on simulated disks, with key slots that cost nearly nothing.
#pragma once

#include <gtest/gtest.h>

#include "luks/format.h"
#include "luks/keys.h"
#include "runtime/shard.h"
#include "sim/sim_storage.h"
#include "sim/sim_world.h"

namespace ringdisk::luks {

// Slots of these open in about 3 ms, mostly for merging their stripes.
inline FormatRequest tested_request(uint32_t version) {
  FormatRequest request;
  request.version = version;
  request.cipher = CipherSpec::parse("aes-cbc-plain64").value();
  request.key_bytes = 16;
  request.kdf.iterations = version == 1 ? kPbkdf2IterationsMin : kArgon2PassesMin;
  request.kdf.memory_kib = kArgon2MemoryKibMin;
  request.kdf.lanes = 1;
  request.payload_offset = ByteCount(1 << 20);
  request.passphrase = as_bytes("first passphrase");
  return request;
}

inline NewKey tested_key(uint32_t version, std::string_view passphrase) {
  NewKey key;
  key.passphrase = as_bytes(passphrase);
  key.kdf = tested_request(version).kdf;
  return key;
}

inline Unlock by_passphrase(std::string_view passphrase) {
  Unlock with;
  with.passphrase = as_bytes(passphrase);
  return with;
}

inline std::unique_ptr<SharedStorage> header_storage(sim::SimDisk& disk) {
  return std::make_unique<SharedStorage>(
      std::make_unique<sim::SimStorageNode>(disk, "disk.luks", 0));
}

// use(window) -> Task<void> on a storage that is closed afterwards.
template <class F>
Task<void> use_header(std::unique_ptr<SharedStorage> storage, F& use) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*storage, Shard::current());
  const HeaderWindow window(*access);
  Result<void> used = co_await use(window).result();
  access.reset();
  co_await storage->node->close();
  co_await std::move(used);
}

inline Task<void> format_only(const World& world, HeaderWindow window, FormatRequest request) {
  LuksVolume volume = co_await format_luks(world, window, request);
  EXPECT_EQ(volume.key_slot, static_cast<int>(request.slot));
}

// The volume's slot goes to `slot`, its key to `key`.
inline Task<void> unlock_into(const World& world, HeaderWindow window, Unlock with, int& slot,
                              std::vector<std::byte>& key) {
  LuksVolume volume = co_await unlock(world, window, with);
  slot = volume.key_slot;
  const Bytes bytes = std::as_const(volume.key).bytes();
  key.assign(bytes.begin(), bytes.end());
}

// A volume on a simulated disk, and what can be done with it, one world for each step.
class TestVolume {
 public:
  explicit TestVolume(FormatRequest request,
                      sim::SimDiskOptions options = sim::SimDiskOptions::file())
      : disk_(options, 1), version_(request.version) {
    auto format = [&](HeaderWindow window) { return format_only(world_.world(), window, request); };
    formatted_ = run(format);
    EXPECT_TRUE(formatted_.ok()) << text_of(formatted_);
  }
  explicit TestVolume(uint32_t version) : TestVolume(tested_request(version)) {}

  template <class F>
  Result<void> run(F use) {
    auto root = [&](Shard&) { return use_header(header_storage(disk_), use); };
    return world_.run(root);
  }
  Result<void> open(Unlock with) {
    auto use = [&](HeaderWindow window) {
      return unlock_into(world_.world(), window, with, slot, key);
    };
    return run(use);
  }
  Result<void> open(std::string_view passphrase) { return open(by_passphrase(passphrase)); }
  // Opens with it: the slot's number, else -1.
  int slot_of(std::string_view passphrase) { return open(passphrase).ok() ? slot : -1; }

  std::string text_of(const Result<void>& result) {
    return result.ok() ? "" : world_.diagnostics().describe(result.error());
  }
  void change_byte(uint64_t at) {
    std::byte one;
    disk_.peek(at, MutableBytes(&one, 1));
    one ^= std::byte{0x10};
    disk_.poke(at, Bytes(&one, 1));
  }
  std::vector<std::byte> content(uint64_t at, size_t bytes) const {
    std::vector<std::byte> content(bytes);
    disk_.peek(at, content);
    return content;
  }
  sim::SimDisk& disk() { return disk_; }
  const World& world() const { return world_.world(); }
  uint32_t version() const { return version_; }

  int slot = -2;
  std::vector<std::byte> key;

 private:
  sim::SimWorld world_;
  sim::SimDisk disk_;
  const uint32_t version_;
  Result<void> formatted_;
};

}  // namespace ringdisk::luks
