// SPDX-License-Identifier: Apache-2.0
// SecretSource: where passphrases come from. Whoever opens or makes an encrypted image asks it by
// the id that the user gave (key-secret=ID), or without one: then it is the key file, or a person
// at a terminal. The program's own is control/secret_table.h; tests have theirs.
//
// Secrets go round as SecretBytes, never as text, and no error or log line holds one.
#pragma once

#include <memory>
#include <string>

#include "async/task.h"
#include "crypto/secret.h"

namespace ringdisk {

using SharedSecret = std::shared_ptr<const SecretBytes>;

// Where the user writes the id of a secret.
enum class SecretPlace : uint8_t {
  kDescription,  // of the image, --image-opts
  kOptions,      // -o of create, convert, amend
  kCommandLine,  // an option of the command itself
};

// What is asked for.
struct SecretWish {
  std::string id;     // as in key-secret=ID; empty: the user named none
  std::string image;  // whom it is for, as the user would recognise it
  // What names the secret, at `place`: "encrypt.key-secret". Graph::find_secret puts before that of
  // a description where in the chain the image is.
  std::string option = "key-secret";
  SecretPlace place = SecretPlace::kDescription;
  std::string key_file_option = "--key-file";  // what names a file instead
  // It is going to be set, so a person is asked twice.
  bool is_new = false;
};

class SecretSource {
 public:
  virtual ~SecretSource() = default;
  // On shard 0. kNotFound with a note that says how to name one.
  virtual Task<SharedSecret> find(SecretWish wish) = 0;
};

}  // namespace ringdisk
