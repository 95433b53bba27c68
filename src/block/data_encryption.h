// SPDX-License-Identifier: Apache-2.0
// DataEncryption: what enciphers the guest data of an image whose format has metadata of its own
// (LUKS inside qcow2). The format keeps an encryption header somewhere in its file and knows no
// cipher; whoever implements this (luks/) knows the header and no format. The app hands the one to
// the other.
//
//   guest data ──> view (enciphers by the offset in the file) ──> the image's file
//   metadata ────────────────────────────────────────────────────> the image's file
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/format_admin.h"
#include "block/graph.h"

namespace ringdisk {

// A new encryption header: options are judged and the secret is known before anything is written.
class NewEncryption {
 public:
  virtual ~NewEncryption() = default;
  // What its header takes in the image's file.
  virtual ByteCount header_bytes() const = 0;
  // Writes it to `place`, which has so many bytes, and nothing outside of it. Not flushed.
  virtual Task<void> write_header(SharedStorage& file, HostRange place) = 0;
};

// Constant; any thread.
class DataEncryption {
 public:
  virtual ~DataEncryption() = default;
  // As in encrypt.format=….
  virtual std::string_view name() const = 0;
  // The options of `encrypt.`, without that prefix, as FormatAdmin has them.
  virtual std::vector<std::pair<std::string, std::string>> create_options() const = 0;
  virtual std::vector<std::pair<std::string, std::string>> amend_options() const = 0;
  // Those that open_view takes.
  virtual DriverWords open_words() const = 0;

  // What the header of a new encryption takes, as NewEncryption::header_bytes, for which no secret
  // is needed. kInvalid and kUnsupported name the option.
  virtual Result<ByteCount> measure(Diagnostics& diagnostics, Options options) const = 0;
  // `image`: as the user calls it, for asking. Errors: kInvalid and kUnsupported name the option.
  virtual Task<std::unique_ptr<NewEncryption>> prepare(Graph& graph, std::string image,
                                                       Options options) const = 0;
  // `file` as its guest data is seen: the same offsets, deciphered with what `options` (key-secret)
  // or else the user says. The view outlives neither the file nor closes it. kDenied with a note:
  // no key slot opens. Blocks have 512 bytes at least; zeros are written, not left to the file;
  // what lies beyond the file's end is no zeros either, and its reads fail (kCorrupt with a note).
  virtual Task<std::unique_ptr<SharedStorage>> open_view(Graph& graph, SharedStorage& file,
                                                         HostRange header,
                                                         Options options) const = 0;
  // What `info` shows of the header, without a secret.
  virtual Task<std::vector<DescribedField>> describe(const World& world, StorageAccess& file,
                                                     HostRange header) const = 0;
  // Changes key slots as `options` say; a crash leaves one that opens.
  virtual Task<void> amend(Graph& graph, SharedStorage& file, HostRange header,
                           Options options) const = 0;
};

}  // namespace ringdisk
