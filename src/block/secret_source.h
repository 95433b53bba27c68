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

// What is asked for.
struct SecretWish {
  std::string id;     // as in key-secret=ID; empty: the user named none
  std::string image;  // whom it is for, as the user would recognise it
  // What names the secret in the image's own description: "encrypt.key-secret". Graph::find_secret
  // puts before it where in the chain the image is. Empty: nothing does (a command's own option).
  std::string option;
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
