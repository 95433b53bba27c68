// SPDX-License-Identifier: Apache-2.0
// What only a format can do to its own images, behind one interface, so that jobs/ and app/ need no
// concrete format: creating, describing, checking, snapshots, bitmaps, amending, compaction.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/task.h"
#include "base/diagnostics.h"
#include "base/limits.h"
#include "block/described_field.h"
#include "block/graph.h"

namespace ringdisk {

struct SnapshotDescription {
  std::string id, name;
  uint64_t vm_state_size = 0, date_seconds = 0, date_nanoseconds = 0, vm_clock_nanoseconds = 0;
  std::optional<uint64_t> icount;
};

// What an image says of itself, without opening any other file.
struct ImageDescription {
  ByteCount virtual_size;
  std::optional<ByteCount> cluster_size;
  bool dirty = false, corrupt = false, encrypted = false, compressed = false;
  std::string backing_name, backing_format;
  std::vector<SnapshotDescription> snapshots;
  std::vector<DescribedField> specific;
};

struct CreateRequest {
  Options storage;  // of the file
  ByteCount size;
  Options options;  // -o: cluster_size, preallocation, …; the format takes what it knows
  std::string backing_name, backing_format;  // as recorded
};

// What is asked of a format that is to say how large an image would become.
struct MeasureRequest {
  ByteCount size;   // of the disk
  Options options;  // -o, as create takes them; a secret that they name is not looked for
  // How many bytes of the disk lie in blocks of `block_size` (a power of two) that hold something
  // else than zeros, the disk's last block as if it were whole. Asked once at the most, and only
  // where it matters. Empty: nothing is to be written.
  std::function<Task<ByteCount>(ByteCount block_size)> count_content;
  // That would be copied with the content. nullopt: where that comes from there are none.
  std::optional<std::vector<BitmapDescription>> bitmaps;
};

// Sizes of a new image's file, as `qemu-img measure --output=json` names them; with an external
// data file, of both. None of them is smaller than what create and convert then make.
struct MeasureReport {
  ByteCount required;                // with the content that is to be written
  ByteCount fully_allocated;         // with content in all places
  std::optional<ByteCount> bitmaps;  // what those take besides; nullopt: the image has none
};

struct CheckProgress {
  uint64_t done = 0, total = 0;
};

// What a check may change.
enum class CheckRepair : uint8_t {
  kNone,
  kLeaks,  // refcounts that are too high, and nothing else
  kAll,
};

struct CheckOptions {
  CheckRepair repair = CheckRepair::kNone;
  // For counting references, beside the tables being looked at. With less an image is gone over
  // more often.
  uint64_t memory_max = limits::kCheckMemoryDefault;
};

// As `qemu-img check --output=json` names them. After a repair the numbers are those of a second
// look.
struct CheckReport {
  uint64_t corruptions = 0, leaks = 0, check_errors = 0;
  uint64_t corruptions_fixed = 0, leaks_fixed = 0;
  uint64_t image_end_offset = 0;
  uint64_t total_clusters = 0, allocated_clusters = 0, fragmented_clusters = 0,
           compressed_clusters = 0;
  std::vector<std::string> messages;  // bounded; "Leaked cluster 5 refcount=1 reference=0"
  bool messages_cut = false;
  std::vector<std::string> second_messages;  // of the second look
};

// A change of an image's internal snapshots.
struct SnapshotEdit {
  enum class Action : uint8_t { kCreate, kApply, kDelete } action = Action::kCreate;
  std::string name;  // of the new one; else the id, or the name, of one that is there
  uint32_t date_seconds = 0, date_nanoseconds = 0;  // since 1970, of the new one
};

struct AmendProgress {
  uint64_t done = 0, total = 0;
};

// A change of what an image was made with.
// In AmendRequest::options, of an encryption that is to be changed whatever that loses (--force).
inline constexpr const char* kForceAmendment = "force";

struct AmendRequest {
  // Opens the image's storage for writing, for one step of the change, which closes it again.
  std::function<Task<std::unique_ptr<SharedStorage>>()> open;
  Options options;  // -o, without `size`, which is resize()'s
  CancelToken cancel;
  std::function<void(AmendProgress)> on_progress;  // may be empty; on the calling shard
};

struct CompactProgress {
  uint64_t done = 0, total = 0;  // clusters
};

struct CompactRequest {
  Options options;  // the format's own, of the image's description: what opens an encrypted one
  CancelToken cancel;
  std::function<void(CompactProgress)> on_progress;  // may be empty; on the calling shard
};

// What a compaction did.
struct CompactReport {
  uint64_t bytes_before = 0, bytes_after = 0;  // of the file, up to what is in use
  uint64_t bytes_moved = 0;
  bool is_cancelled = false;
  std::vector<std::string> obstacles;  // bounded; what stays where it is, and ends the file so late
};

// A change of one of an image's persistent bitmaps.
struct BitmapEdit {
  enum class Action : uint8_t { kAdd, kRemove, kClear, kEnable, kDisable, kMerge };
  Action action = Action::kAdd;
  std::string bitmap;
  uint64_t granularity = 0;                      // kAdd; 0: the format's default
  std::string source;                            // kMerge: what is merged into `bitmap`
  std::shared_ptr<const DirtyBits> source_bits;  // kMerge; null: `source` is of the same image
};

class FormatAdmin {
 public:
  virtual ~FormatAdmin() = default;
  virtual std::string_view name() const = 0;
  // The -o options it takes, one line each for `-o help`.
  virtual std::vector<std::pair<std::string, std::string>> create_options() const = 0;
  // The keys and values that `create`'s line of text shows for a new image, in qemu-img's order. A
  // format with defaults worth showing says its own.
  virtual std::vector<std::pair<std::string, std::string>> creation_summary(
      const CreateRequest& request) const;
  // Whether its images can have compressed clusters.
  virtual bool compresses() const { return false; }
  // Whether a new image reads as zeros where nobody has written yet. What is deciphered does not.
  virtual bool new_reads_zero() const { return true; }
  // Whether an image made with these options is to have a disk in it. A header alone, whose disk is
  // in another file, has none: it needs no size, and nothing can be copied into it.
  virtual bool has_disk(const Options&) const { return true; }
  // Writes a new image. The storage is created (or cut) first. On an error what was made is left
  // for the caller to remove.
  virtual Task<void> create(Graph& graph, CreateRequest request) = 0;
  // How large an image would become; none is made. Refuses the options that create() refuses.
  virtual Task<MeasureReport> measure(const World& world, MeasureRequest request) = 0;
  virtual Task<ImageDescription> describe(const World& world, SharedStorage& storage) = 0;
  // The image in `storage`, opened for writing by nobody else; closed afterwards. kUnsupported: the
  // format has no snapshots. kNotFound: not this one.
  virtual Task<void> edit_snapshots(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                    SnapshotEdit edit);
  // In order, all or, on an error, none; the storage is handled as above. kUnsupported: the format
  // has no bitmaps.
  virtual Task<void> edit_bitmaps(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                  std::vector<BitmapEdit> edits);
  // Refuses a size that resize() would refuse, before anything is given up for it. Reads only.
  virtual Task<void> check_new_size(const World&, SharedStorage&, ByteCount) { co_return; }
  // Before resize() to a larger size: makes room in the tables for the disk in `storage`, which is
  // handled as above, to have `size` bytes; it keeps its size.
  virtual Task<void> prepare_growth(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                    ByteCount size);
  // Lets the disk in `node`, prepared for that and without queues yet, be read and written up to
  // `size`: what lies beyond its end is made ready there while nobody else sees it. For formats
  // whose limits() do not say maps_directly.
  virtual Result<void> show_grown(FormatNode& node, ByteCount size);
  // Gives the disk in `storage`, which is handled as above, another size. What a smaller one cuts
  // off has been zeroed with may_unmap before.
  virtual Task<void> resize(Graph& graph, std::unique_ptr<SharedStorage> storage,
                            ByteCount size) = 0;
  // Gives up all that the image `node` holds of its own; its disk reads as its backing image does.
  // It is one of this format's, open for writing; its queues are gone, and nothing but its close
  // comes after. kUnsupported: the format has no backing images.
  virtual Task<void> make_empty(const World& world, FormatNode& node);
  // Changes what the image `node`, handled as above, records of its backing image, when all that
  // was written to it is durable; an empty name: it has none. What its disk shows is the caller's
  // affair. kUnsupported: the format has no backing images. kLimit: the name is too long.
  virtual Task<void> change_backing(const World& world, FormatNode& node, std::string name,
                                    std::string format);
  // The -o options that amend takes, as create_options; none: its images cannot be amended.
  virtual std::vector<std::pair<std::string, std::string>> amend_options() const { return {}; }
  // Options are judged before anything changes; then step by step, each of which a crash or an
  // error leaves done or not done. kInvalid, kUnsupported: the option is named. kCancelled.
  virtual Task<void> amend(Graph& graph, AmendRequest request);
  // Moves what lies at the end of the image's file into holes, and cuts the file; the storage is
  // handled as above. A cancel ends it early, with what was gained till then. kUnsupported: the
  // format has no holes. Of an encrypted image content moves, so it needs a passphrase.
  virtual Task<CompactReport> compact(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                      CompactRequest request);
  // nullopt: this format has nothing to check (qemu-img exit code 63). Writes only to repair, and
  // then in an order in which the image is no worse at any moment. kCancelled when `cancel` was.
  // `on_progress`, which may be empty, is called on the calling shard.
  virtual Task<std::optional<CheckReport>> check(
      const World& world, SharedStorage& storage, CheckOptions options, CancelToken cancel,
      std::function<void(CheckProgress)> on_progress) = 0;
};

inline std::vector<std::pair<std::string, std::string>> FormatAdmin::creation_summary(
    const CreateRequest& request) const {
  std::vector<std::pair<std::string, std::string>> shown;
  shown.emplace_back("size", std::to_string(request.size.value()));
  if (!request.backing_name.empty()) shown.emplace_back("backing_file", request.backing_name);
  if (!request.backing_format.empty()) shown.emplace_back("backing_fmt", request.backing_format);
  for (const auto& [key, value] : request.options.values()) shown.emplace_back(key, value);
  return shown;
}

// Closes an image that its format cannot do something with, and says so.
inline Task<void> refuse_and_close(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                   std::string why) {
  const uint32_t node = storage->node->id();
  Result<void> closed = co_await storage->node->close().result();
  co_await std::move(closed);
  const Error error = Error::of(ErrorKind::kUnsupported, "edit image");
  co_await fail(graph.world().diagnostics.explain(error, node, std::move(why)));
}

inline Task<void> FormatAdmin::edit_snapshots(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                              SnapshotEdit) {
  return refuse_and_close(graph, std::move(storage),
                          "the format '" + std::string(name()) + "' has no snapshots");
}

inline Task<void> FormatAdmin::amend(Graph& graph, AmendRequest) {
  const Error error = Error::of(ErrorKind::kUnsupported, "amend");
  co_await fail(graph.world().diagnostics.explain(
      error, "images of format '" + std::string(name()) + "' cannot be amended"));
}

inline Task<void> FormatAdmin::prepare_growth(Graph&, std::unique_ptr<SharedStorage> storage,
                                              ByteCount) {
  co_await storage->node->close();
}

inline Result<void> FormatAdmin::show_grown(FormatNode&, ByteCount) {
  UNREACHABLE("this format's disks are where their bytes are");
}

inline Task<void> FormatAdmin::make_empty(const World& world, FormatNode&) {
  co_await fail(
      world.diagnostics.explain(Error::of(ErrorKind::kUnsupported, "empty image"),
                                "the format '" + std::string(name()) + "' has no backing images"));
}

inline Task<void> FormatAdmin::change_backing(const World& world, FormatNode&, std::string,
                                              std::string) {
  co_await fail(world.diagnostics.explain(
      Error::of(ErrorKind::kUnsupported, "change backing"),
      "the format '" + std::string(this->name()) + "' has no backing images"));
}

namespace format_admin_internal {
// Never gives a report.
inline Task<CompactReport> refuse_to_compact(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                             std::string why) {
  co_await refuse_and_close(graph, std::move(storage), std::move(why));
  co_return CompactReport();
}
}  // namespace format_admin_internal

inline Task<CompactReport> FormatAdmin::compact(Graph& graph,
                                                std::unique_ptr<SharedStorage> storage,
                                                CompactRequest) {
  return format_admin_internal::refuse_to_compact(
      graph, std::move(storage),
      "the format '" + std::string(name()) + "' has no holes that could be filled");
}

inline Task<void> FormatAdmin::edit_bitmaps(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                            std::vector<BitmapEdit>) {
  return refuse_and_close(graph, std::move(storage),
                          "the format '" + std::string(name()) + "' has no bitmaps");
}

}  // namespace ringdisk
