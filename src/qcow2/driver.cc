// SPDX-License-Identifier: Apache-2.0
// Opening an image: header, what it may be opened for, L1 table. Nothing is written here but the
// repair of an image that was not closed cleanly. Tables that only a writer needs are read by the
// home shard, which may still refuse (home_life.cc).
#include "qcow2/driver.h"

#include "base/diagnostics.h"
#include "base/log.h"
#include "block/data_encryption.h"
#include "qcow2/check/check.h"
#include "qcow2/check/cut_short.h"
#include "qcow2/describe.h"
#include "qcow2/edit/snapshots.h"
#include "qcow2/image_path.h"
#include "qcow2/node.h"
#include "qcow2/run_options.h"
#include "runtime/blocking_pool.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace qcow2 {
namespace {

// Opens one image; lives in the frame of open_image.
class Opener {
 public:
  Opener(FormatOpening& opening, StorageAccess& storage, const DataEncryption* encryption)
      : world_(opening.world), opening_(opening), storage_(storage), encryption_(encryption) {}

  Task<std::unique_ptr<Image>> open();
  // After a failure.
  Task<void> close_data();

 private:
  Task<Header> read_header();
  Task<void> select_snapshot(Header& header, std::string wanted);
  Task<void> repair_unclean(Header& header);
  Task<void> refuse_cut_short(const Header& header);
  Task<std::unique_ptr<SharedStorage>> open_data_file(const Header& header);
  Task<Options> find_data_file(const Header& header);
  Task<std::unique_ptr<SharedStorage>> open_view(const Header& header);
  Result<void> check_writable(const Header& header) const;
  Task<std::vector<std::byte>> read_l1_table(const Header& header);
  bool is_read_only() const { return opening_.mode.read_only || storage_.limits().read_only; }
  Error refuse(ErrorKind kind, std::string why) const {
    return world_.diagnostics.explain(Error::of(kind, "open"), storage_.node_id(), std::move(why));
  }

  const World& world_;
  FormatOpening& opening_;
  StorageAccess& storage_;
  const DataEncryption* const encryption_;
  std::unique_ptr<SharedStorage> data_;  // until the image has it
};

Task<Header> Opener::read_header() {
  const uint64_t length = std::min<uint64_t>(kHeaderBytesMax, storage_.size().value());
  std::vector<std::byte> bytes(length);
  if (length != 0) co_await storage_.read(HostOffset(0), MutableBuffers(MutableBytes(bytes)));
  Header header = co_await parse_header(bytes, world_.diagnostics, storage_.node_id());
  co_await check_features(header, world_.diagnostics, storage_.node_id());
  co_await check_has_refcounts(header, world_.diagnostics, storage_.node_id());
  co_await check_places(header, storage_.size(), world_.diagnostics, storage_.node_id());
  co_return std::move(header);
}

Result<void> Opener::check_writable(const Header& header) const {
  if (is_read_only()) return {};
  if (header.has_data_file() && header.snapshot_count != 0) {
    return refuse(ErrorKind::kUnsupported,
                  "has snapshots and a data file, which exclude each other; it can only be read");
  }
  if (header.is_corrupt()) {
    return refuse(ErrorKind::kCorrupt,
                  "the image is marked as corrupt; open it read-only, or repair it "
                  "with 'ringdisk check -r all'");
  }
  if (header.is_dirty()) {
    return refuse(
        ErrorKind::kCorrupt,
        "the image was not closed cleanly (dirty bit), and not all of what that left could "
        "be repaired; 'ringdisk check' tells what");
  }
  return {};
}

// What a change that did not come to its end has left (a snapshot, another size; another program's
// lazy refcounts) is put right before anybody writes. Costs a check of the whole image.
Task<void> Opener::repair_unclean(Header& header) {
  if (is_read_only() || !header.is_dirty() || header.is_corrupt()) co_return;
  CheckOptions options;
  options.repair = CheckRepair::kAll;
  const CancelToken never;
  const std::function<void(CheckProgress)> no_progress;
  std::optional<CheckReport> report =
      co_await check_image(world_, *opening_.storage, options, never, no_progress);
  CHECK(report.has_value());
  world_.log.warning(world_.diagnostics.node_name(storage_.node_id()) +
                     ": was not closed cleanly; repaired: " + std::to_string(report->leaks_fixed) +
                     " leaked clusters, " + std::to_string(report->corruptions_fixed) +
                     " other faults");
  header = co_await read_header();
}

Task<void> Opener::refuse_cut_short(const Header& header) {
  if (is_read_only() || !storage_.limits().grows) co_return;
  const bool is_cut = co_await is_cut_short(world_, *opening_.storage, storage_, header);
  if (!is_cut) co_return;
  co_await fail(refuse(ErrorKind::kCorrupt,
                       "has been cut short: guest data lies beyond the end of the file, so it can "
                       "only be read; 'ringdisk check' tells what is lost, 'convert --salvage' "
                       "copies the rest"));
}

Task<std::vector<std::byte>> Opener::read_l1_table(const Header& header) {
  std::vector<std::byte> table(uint64_t{header.l1_size} * kEntryBytes);
  if (!table.empty()) co_await storage_.read(header.l1_table, MutableBuffers(MutableBytes(table)));
  co_return std::move(table);
}

// From here on the snapshot's table and size are the image's.
Task<void> Opener::select_snapshot(Header& header, std::string wanted) {
  if (!is_read_only()) {
    co_await fail(refuse(ErrorKind::kInvalid,
                         "a snapshot can only be read; 'snapshot -a' makes "
                         "the disk what it was then"));
  }
  const SnapshotTable table = co_await read_snapshots(storage_, header, world_.diagnostics);
  const size_t index = co_await choose_snapshot(table, wanted, Precedence::kId, world_.diagnostics,
                                                storage_.node_id());
  const Snapshot& snapshot = table.snapshots[index];
  header.l1_table = snapshot.l1_table;
  header.l1_size = snapshot.l1_size;
  header.size = ByteCount(snapshot.disk_size.value_or(header.size.value()));
  const Geometry geometry = header.geometry();
  const bool is_right = snapshot.l1_table.is_aligned(geometry.cluster_size()) &&
                        uint64_t{snapshot.l1_size} * kEntryBytes <= limits::kQcow2L1BytesMax &&
                        header.size.value() <= kOffsetMax &&
                        snapshot.l1_size >= geometry.l1_entries_for(header.size);
  if (!is_right) {
    co_await fail(refuse(ErrorKind::kCorrupt, "the entry of snapshot '" + snapshot.name +
                                                  "' is damaged; 'ringdisk check' tells more"));
  }
  co_await check_places(header, storage_.size(), world_.diagnostics, storage_.node_id());
}

// What the user says, else what the image says, past the gate. The image's own file it can never
// be: guest data would be written over its tables.
Task<Options> Opener::find_data_file(const Header& header) {
  Options described = opening_.options.take_group("data-file");
  if (!described.empty()) co_return std::move(described);
  const std::string name = header.data_file_name();
  if (name.empty()) {
    co_await fail(refuse(ErrorKind::kInvalid,
                         "the image does not record its data file; name it with --image-opts "
                         "data-file.filename=FILE"));
  }
  std::string image = opening_.path;
  if (image.empty()) image = path_of(*opening_.storage->node);
  auto admit = [&](Blocking token) -> Result<std::string> {
    ASSIGN_OR_RETURN(std::string path,
                     opening_.graph.gate().admit(token, image, name, "raw", "data file"));
    if (!is_same_file(token, image, path)) return path;
    return refuse(ErrorKind::kCorrupt, "names itself as its data file");
  };
  std::string path = co_await run_blocking(world_.blocking, admit);
  described.set("filename", std::move(path));
  co_return std::move(described);
}

Task<std::unique_ptr<SharedStorage>> Opener::open_data_file(const Header& header) {
  if (!header.has_data_file()) co_return std::unique_ptr<SharedStorage>();
  if (header.size.value() > kDataFileDiskBytesMax) {
    co_await fail(refuse(ErrorKind::kLimit, "a disk with a data file has at most 32 PiB"));
  }
  if (opening_.data) co_return std::move(opening_.data);
  Options described = co_await find_data_file(header);
  co_return co_await opening_.graph.open_storage(std::move(described), opening_.mode).result();
}

// The image's own file, deciphered.
Task<std::unique_ptr<SharedStorage>> Opener::open_view(const Header& header) {
  Options options = opening_.options.take_group("encrypt");
  if (opening_.mode.metadata_only) co_return std::unique_ptr<SharedStorage>();
  const std::string format = options.take("format").value_or("luks");
  if (format != "luks") {
    co_await fail(refuse(ErrorKind::kInvalid, "is encrypted with luks, not '" + format + "'"));
  }
  if (!encryption_) {
    co_await fail(refuse(ErrorKind::kUnsupported, "is encrypted, which is not supported here"));
  }
  const HostRange place = header.encryption_header().value();
  co_return co_await encryption_
      ->open_view(opening_.graph, *opening_.storage, place, std::move(options))
      .result();
}

Task<std::unique_ptr<Image>> Opener::open() {
  Header header = co_await read_header();
  std::optional<std::string> snapshot = opening_.options.take("snapshot");
  if (snapshot) co_await select_snapshot(header, *snapshot);
  co_await repair_unclean(header);
  co_await check_writable(header);
  co_await refuse_cut_short(header);
  const RunOptions run = co_await take_run_options(opening_.options, header, world_.diagnostics);
  if (header.is_encrypted()) {
    data_ = co_await open_view(header);
  } else {
    data_ = co_await open_data_file(header);
  }
  co_await opening_.options.check_all_taken("qcow2", world_.diagnostics);
  std::vector<std::byte> l1_table = co_await read_l1_table(header);
  FormatLimits format_limits;
  format_limits.cluster_size = ByteCount(header.geometry().cluster_size());
  format_limits.subcluster_bits = header.geometry().subcluster_bits();
  format_limits.read_only = is_read_only();
  format_limits.compresses = !header.has_data_file() && !header.is_encrypted();
  const CacheMode cache = opening_.mode.cache;
  const bool writes_through = cache == CacheMode::kWritethrough || cache == CacheMode::kDirectsync;
  const ImageOptions options{run.slice_memory_max, opening_.mode.keep_clean,
                             writes_through,       opening_.mode.keep_zeroes,
                             run.is_lazy,          run.gives_space_back};
  co_return std::make_unique<Image>(world_, std::move(opening_.storage), std::move(data_),
                                    std::move(header), l1_table, format_limits, options);
}

Task<void> Opener::close_data() {
  if (opening_.data) data_ = std::move(opening_.data);
  if (data_) co_await data_->node->close();
}

// On an error the storages are closed again.
Task<OpenedFormat> open_image(FormatOpening opening, const DataEncryption* encryption) {
  SharedStorage& storage = *opening.storage;
  Result<std::unique_ptr<StorageAccess>> access =
      co_await StorageAccess::open(storage, Shard::current()).result();
  Result<std::unique_ptr<Image>> image = Error();
  if (access.ok()) {
    Opener opener(opening, *access.value(), encryption);
    image = co_await opener.open().result();
    if (!image.ok()) {
      // Nothing was written to it, so that it closes adds nothing to the cause.
      Result<void> closed = co_await opener.close_data().result();
      static_cast<void>(closed.ok());
    }
    std::unique_ptr<StorageAccess> ended = std::move(access).value();
  } else {
    image = access.error();
  }
  if (!image.ok()) {
    Result<void> closed = co_await storage.node->close().result();
    static_cast<void>(closed.ok());
    co_return at_node(image.error(), storage.node->id());
  }
  OpenedFormat opened;
  opened.backing_name = image.value()->header.backing_name;
  opened.backing_format = image.value()->header.backing_format;
  opened.node = std::make_unique<Qcow2Node>(std::move(image).value());
  co_return std::move(opened);
}

}  // namespace
}  // namespace qcow2

FormatDriver qcow2_driver(const DataEncryption* encryption) {
  FormatDriver driver;
  driver.name = "qcow2";
  driver.words = {"snapshot", "data-file.", "encrypt.format"};
  for (const char* word : qcow2::kRunWords) driver.words.emplace_back(word);
  const DriverWords encrypt = encryption ? encryption->open_words() : DriverWords();
  for (const std::string& word : encrypt) driver.words.push_back("encrypt." + word);
  driver.probe = [](Bytes first_bytes) { return qcow2::looks_like_qcow2(first_bytes) ? 100 : 0; };
  driver.open = [encryption](FormatOpening opening) {
    return qcow2::open_image(std::move(opening), encryption);
  };
  return driver;
}

}  // namespace ringdisk
