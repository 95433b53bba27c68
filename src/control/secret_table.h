// SPDX-License-Identifier: Apache-2.0
// SecretTable: the secrets of one run of the program. Those that the command line names are read in
// main() before any thread starts (a descriptor passed by a service manager is gone afterwards); a
// person is asked only when an image needs it, once an image.
//
//   --object secret,id=sec0,file=PATH      for key-secret=sec0
//   --key-file PATH                        for images that name no secret
//   the terminal                           for the rest
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <string_view>

#include "block/secret_source.h"
#include "control/secret_file.h"
#include "control/terminal_prompt.h"

namespace ringdisk {

class BlockingPool;
class Diagnostics;

// Made in main(), which fills it; used on shard 0.
class SecretTable final : public SecretSource {
 public:
  explicit SecretTable(Diagnostics& diagnostics) : diagnostics_(diagnostics) {}

  // What --object and --key-file say.
  Result<void> add_object(Blocking token, std::string_view text);
  Result<void> set_key_file(Blocking token, const std::string& path, KeyFilePart part = {});
  // A secret stood on the command line itself, where other users of the machine see it.
  bool has_shown_secret() const { return has_shown_secret_; }

  // From here on people are asked. `stopped` and the pool outlive the table's use.
  void ask_at(std::string terminal, BlockingPool& pool, const std::atomic<bool>& stopped) {
    terminal_ = std::move(terminal);
    pool_ = &pool;
    stopped_ = &stopped;
  }

  Task<SharedSecret> find(SecretWish wish) override;
  // Whether the person at the terminal answers `question` with YES, which is not shown. kNotFound:
  // there is no terminal.
  Task<bool> confirm(std::string question);

 private:
  Task<SharedSecret> ask(const SecretWish& wish);
  Task<SecretBytes> ask_once(std::string question);
  Error explain_silence(const Error& error, const SecretWish& wish);

  Diagnostics& diagnostics_;
  std::map<std::string, SharedSecret, std::less<>> by_id_;
  SharedSecret key_file_;
  bool has_shown_secret_ = false;
  std::string terminal_;
  BlockingPool* pool_ = nullptr;  // null: nobody is asked
  const std::atomic<bool>* stopped_ = nullptr;
  std::map<std::string, SharedSecret, std::less<>> answers_;  // by image
};

}  // namespace ringdisk
