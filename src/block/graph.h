// SPDX-License-Identifier: Apache-2.0
// Opening images: from what the user named to a DeviceNode with its storages and backing chain.
// Drivers are handed in as a list made in main (control/drivers.h); nothing registers itself.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "async/task.h"
#include "block/device_queue.h"
#include "block/open_gate.h"
#include "block/options.h"
#include "block/secret_source.h"
#include "block/storage_access.h"
#include "runtime/world.h"

namespace ringdisk {

// How an image is to be opened. Handed down the chain: backing images are opened read-only, with
// the same cache mode.
struct OpenMode {
  bool read_only = false;
  bool share = false;       // -U: do not insist on locks (qemu-img's force-share)
  bool no_backing = false;  // do not open backing images (info, check)
  bool keep_clean = false;  // change nothing at open: no dirty marks, no repair (info, check, map)
  // Zeros are recorded as such even where nothing lies below that they would have to hide: it is
  // going to (rebase).
  bool keep_zeroes = false;
  // Nobody reads or writes the disk through this opening, only what the image records about it: no
  // passphrase is needed. For formats that keep the two apart.
  bool metadata_only = false;
  CacheMode cache = CacheMode::kWriteback;
  DevicePolicy policy;  // of the disk itself; its description's own words win
};

class Graph;

// What a driver takes of a description: "size", and "encrypt." for all words that begin so. For
// judging one that is not going to be opened; empty: nobody knows.
using DriverWords = std::vector<std::string>;

// Opens storages of one kind.
struct StorageDriver {
  std::string name;  // as in driver=…
  // `options` are the storage's own, with "filename" for those that have one.
  std::function<Task<std::unique_ptr<StorageNode>>(const World&, Options options, OpenMode mode)>
      open;
  // Makes an empty storage of `size` bytes, replacing what was there. Null: cannot be created.
  std::function<Task<void>(const World&, Options options, ByteCount size)> create;
  DriverWords words;
};

// What a format's open gets.
struct FormatOpening {
  const World& world;
  Graph& graph;                            // for data files, through the gate
  std::unique_ptr<SharedStorage> storage;  // the image itself
  std::string path;                        // its local path, empty where it has none
  OpenMode mode;
  Options options;  // the format's own
  // A data file that is open already; null: the image finds its own.
  std::unique_ptr<SharedStorage> data = nullptr;
};

struct OpenedFormat {
  std::unique_ptr<FormatNode> node;
  // What the image records of its backing image; empty: it has none.
  std::string backing_name;
  std::string backing_format;
};

// What is left in a storage of an image whose front is gone.
struct FormatRemains {
  std::string format;  // empty: nothing
  std::string what;    // "a second copy of a LUKS2 header"
  // Something else has been written over the front since, such as a file system, and is likely to
  // be what the storage is now.
  bool is_overwritten = false;
  bool are_there() const { return !format.empty(); }
};

struct FormatDriver {
  std::string name;
  // How sure a look at the image's first bytes makes it: 0 not at all, 100 a magic number matched.
  std::function<int(Bytes first_bytes)> probe;
  // Looks elsewhere, where no driver's probe() knew the first bytes. Null: there is nothing.
  std::function<Task<FormatRemains>(const World&, StorageAccess&)> find_remains;
  std::function<Task<OpenedFormat>(FormatOpening opening)> open;
  DriverWords words;
};

// The drivers there are, made in main. Constant afterwards.
struct Drivers {
  std::vector<StorageDriver> storages;
  std::vector<FormatDriver> formats;
};

// What to open: a file name with an optional format, or options.
struct ImageName {
  std::string filename;  // used if `options` is empty
  std::string format;  // empty: probe (the disk must then not be raw for writing, see Graph::open)
  Options options;     // driver=…,file.driver=…,file.filename=…
  std::string snapshot;  // not the disk but this internal snapshot of it; empty: the disk
  std::string prefix;    // what its options have before them where the user writes them: "backing."
  std::string text() const;  // as the user would recognise it
};

// An image's name taken apart: what goes to its storage, and what to its format.
struct ImageParts {
  Options storage;     // with its driver where it is not "file"
  std::string format;  // empty: to be probed
  Options options;     // the format's
  // A description of a storage without a format (driver=file,filename=x): its bytes are the disk,
  // and nobody looks for a format in them, as qemu has it. `format` is raw then.
  bool is_bare_storage = false;

  std::string path() const;  // of the local file that it is, or lies in; empty: neither
};

// What a look at a storage's bytes says.
struct ProbedFormat {
  std::string name;  // "raw" if nothing else
  // Of "raw": whose it may be all the same. Nothing is opened as that unless its user says so:
  // whoever writes to a raw disk, its guest too, could have written them.
  FormatRemains remains;
};

class Graph {
 public:
  // `secrets` may be null: then encrypted images are refused.
  Graph(const World& world, const Drivers& drivers, const OpenGate& gate,
        SecretSource* secrets = nullptr)
      : world_(world), drivers_(drivers), gate_(gate), secrets_(secrets) {}

  // On the calling shard. A probed image that turns out raw is opened with a warning, as raw, and
  // its first sector then refuses to become another format's header.
  Task<std::shared_ptr<DeviceNode>> open(ImageName name, OpenMode mode);

  // A storage alone (creating, checking). The filename's driver is "file" unless options name
  // another.
  Task<std::unique_ptr<SharedStorage>> open_storage(Options options, OpenMode mode);
  Task<void> create_storage(Options options, ByteCount size);
  // Errors: kInvalid for a description that names no storage, kUnsupported for an unknown driver.
  Result<ImageParts> take_apart(ImageName name) const;
  const FormatDriver* find_format(std::string_view name) const;
  const StorageDriver* find_storage(std::string_view name) const;
  Task<ProbedFormat> probe_format(SharedStorage& storage);
  // Taking `storage` for raw although that was probed: kDenied for writing, which could destroy
  // what is left; else, and where that is overwritten, a warning.
  Result<void> admit_as_raw(const SharedStorage& storage, const ProbedFormat& probed,
                            bool read_only) const;

  // What opens an encrypted image, or is going to. On shard 0.
  Task<SharedSecret> find_secret(SecretWish wish) const;

  const World& world() const { return world_; }
  const OpenGate& gate() const { return gate_; }
  const Drivers& drivers() const { return drivers_; }

 private:
  struct ChainLink;
  Task<std::shared_ptr<DeviceNode>> open_at_depth(ImageName name, OpenMode mode,
                                                  const ChainLink* above);
  Task<std::shared_ptr<DeviceNode>> open_backing(const OpenedFormat& format,
                                                 const std::string& path, OpenMode mode,
                                                 const ChainLink& above);
  Task<FormatRemains> find_remains(StorageAccess& storage) const;

  const World& world_;
  const Drivers& drivers_;
  const OpenGate& gate_;
  SecretSource* const secrets_;
  std::string prefix_;  // ImageName::prefix of the image that is being opened with it
};

}  // namespace ringdisk
