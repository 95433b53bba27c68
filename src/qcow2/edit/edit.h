// SPDX-License-Identifier: Apache-2.0
// One change of an image as a whole, from open to close.
#pragma once

#include "block/graph.h"
#include "qcow2/edit/table_editor.h"

namespace ringdisk {
class DataEncryption;
}

namespace ringdisk::qcow2 {

// Opens the image in `storage` alone for writing, makes the change on its home shard (this one),
// closes. Metadata is changed, and nothing else: an encrypted image needs no passphrase.
Task<void> edit_image(Graph& graph, std::unique_ptr<SharedStorage> storage, const ImageEdit& edit);

// How an image is opened for a change of its guest data as well.
struct EditOpening {
  EditOpening(OpenMode how, Options described, const DataEncryption* data_encryption)
      : mode(how), options(std::move(described)), encryption(data_encryption) {}
  OpenMode mode;
  Options options;                   // as of a description: encrypt.key-secret
  const DataEncryption* encryption;  // null: an encrypted image is refused
};
// The same for such a change.
Task<void> edit_image_with_data(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                const ImageEdit& edit, EditOpening opening);

}  // namespace ringdisk::qcow2
