// SPDX-License-Identifier: Apache-2.0
// The writing half of making an image: tables are computed piece by piece into one buffer, so that
// an image of any size is made in bounded memory.
#include "qcow2/create.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "block/close_after.h"
#include "block/storage_access.h"
#include "qcow2/image_path.h"
#include "qcow2/layout/l2_entry.h"
#include "qcow2/layout/refcount_block.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kPieceBytes = 1 * limits::kMiB;  // a multiple of every table entry's size

// Writes one new image to an opened storage. One shard, one use.
class ImageWriter {
 public:
  ImageWriter(StorageAccess& storage, const CreateSettings& settings, const Layout& layout,
              Shard& shard)
      : storage_(storage),
        settings_(settings),
        layout_(layout),
        geometry_(settings.header.geometry()),
        buffer_(shard.buffers().take(kPieceBytes)) {}

  // All but the image's header; a place for that of the encryption.
  Task<void> write_tables_and_data();
  HostRange encryption_place() const;
  // The header last: what is cut short before is no image yet.
  Task<void> finish();

 private:
  HostOffset host(uint64_t cluster) const { return geometry_.host_offset(ClusterIndex(cluster)); }
  uint64_t bytes(uint64_t clusters) const { return clusters * geometry_.cluster_size(); }

  // Writes a table of `clusters` from cluster `first` on; fill(piece, at) computes the bytes from
  // byte `at` of the table on.
  template <class Fill>
  Task<void> write_table(uint64_t first, uint64_t clusters, Fill fill);
  Task<void> write_header();
  Task<void> prepare_data();
  Task<void> write_tables();

  StorageAccess& storage_;
  const CreateSettings& settings_;
  const Layout& layout_;
  const Geometry geometry_;
  Buffer buffer_;
};

template <class Fill>
Task<void> ImageWriter::write_table(uint64_t first, uint64_t clusters, Fill fill) {
  const uint64_t length = bytes(clusters);
  for (uint64_t at = 0; at < length; at += kPieceBytes) {
    MutableBytes piece = buffer_.first(std::min(kPieceBytes, length - at));
    fill(piece, at);
    co_await storage_.write(host(first) + ByteCount(at), ConstBuffers(Bytes(piece)));
  }
}

// Entry i of a table of 8-byte entries, from byte `at` on, is value(i).
template <class Value>
void fill_entries(MutableBytes piece, uint64_t at, Value value) {
  for (size_t i = 0; i < piece.size(); i += kEntryBytes) {
    store_be64(&piece[i], value((at + i) / kEntryBytes));
  }
}

Task<void> ImageWriter::write_tables() {
  auto block_of_table = [this](uint64_t i) -> uint64_t {
    return i < layout_.refcount_block_clusters ? host(layout_.refcount_blocks + i).value() : 0;
  };
  auto fill_refcount_table = [&](MutableBytes piece, uint64_t at) {
    fill_entries(piece, at, block_of_table);
  };
  // The blocks lie one behind the other, so they are one array of counters.
  const uint32_t order = geometry_.refcount_order();
  auto fill_refcounts = [&](MutableBytes piece, uint64_t at) {
    fill_zero(piece);
    const uint64_t first = (at * 8) >> order;
    const uint64_t count =
        std::min((piece.size() * 8) >> order, layout_.total - std::min(layout_.total, first));
    for (uint64_t i = 0; i < count; ++i) store_refcount(piece, order, i, 1);
  };
  auto l2_of = [this](uint64_t i) -> uint64_t {
    return i < layout_.l2_clusters ? L1Entry::owned(host(layout_.l2_tables + i)).raw() : 0;
  };
  auto fill_l1 = [&](MutableBytes piece, uint64_t at) { fill_entries(piece, at, l2_of); };
  // Extended entries: clusters have their places, subclusters are unallocated, so that a backing
  // image shows through.
  const uint64_t words = geometry_.l2_entry_bytes() / kEntryBytes;
  const bool is_outside = settings_.header.has_data_file();
  const uint64_t clusters =
      is_outside ? geometry_.guest_clusters(settings_.header.size) : layout_.data_clusters;
  const uint64_t first = is_outside ? 0 : layout_.data;
  // Deciphered, what nobody wrote is noise, so clusters are marked as zeros that have a place.
  const bool is_marked = settings_.encryption && words == 1;
  const uint64_t mark = is_marked ? L2Entry::zero().raw() : 0;
  auto cluster_of = [this, words, clusters, first, mark](uint64_t i) -> uint64_t {
    const bool is_named = i % words == 0 && i / words < clusters;
    return is_named ? L2Entry::owned(host(first + i / words)).raw() | mark : 0;
  };
  auto fill_l2 = [&](MutableBytes piece, uint64_t at) { fill_entries(piece, at, cluster_of); };

  co_await write_table(layout_.refcount_table, layout_.refcount_table_clusters,
                       fill_refcount_table);
  co_await write_table(layout_.refcount_blocks, layout_.refcount_block_clusters, fill_refcounts);
  co_await write_table(layout_.l1_table, layout_.l1_clusters, fill_l1);
  co_await write_table(layout_.l2_tables, layout_.l2_clusters, fill_l2);
}

// With a data file there is nothing of it here.
Task<void> ImageWriter::prepare_data() {
  if (layout_.data_clusters == 0) co_return;
  const HostRange data(host(layout_.data), ByteCount(bytes(layout_.data_clusters)));
  co_await take_space(storage_, data, settings_.preallocation);
}

Task<void> ImageWriter::write_header() {
  Header header = settings_.header;
  header.l1_size = static_cast<uint32_t>(layout_.l1_entries);
  header.l1_table = layout_.l1_entries == 0 ? HostOffset(0) : host(layout_.l1_table);
  header.refcount_table = host(layout_.refcount_table);
  header.refcount_table_clusters = static_cast<uint32_t>(layout_.refcount_table_clusters);
  if (layout_.encryption_clusters != 0) set_encryption_header(header, encryption_place());
  std::vector<std::byte> encoded = co_await encode_header(header);
  encoded.resize(geometry_.cluster_size());
  co_await storage_.write(HostOffset(0), ConstBuffers(Bytes(encoded)));
}

HostRange ImageWriter::encryption_place() const {
  return HostRange(host(layout_.encryption), settings_.encryption_bytes);
}

Task<void> ImageWriter::write_tables_and_data() {
  co_await storage_.resize(ByteCount(bytes(layout_.total)));
  co_await write_tables();
  co_await prepare_data();
}

Task<void> ImageWriter::finish() {
  co_await storage_.flush();
  co_await write_header();
  co_await storage_.flush();
}

// `encryption` is null where there is none.
Task<void> write_image(SharedStorage& storage, const CreateSettings& settings, const Layout& layout,
                       NewEncryption* encryption) {
  Shard& shard = Shard::current();
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, shard);
  ImageWriter writer(*access, settings, layout, shard);
  co_await writer.write_tables_and_data();
  if (encryption) co_await encryption->write_header(storage, writer.encryption_place());
  co_await writer.finish();
}

Task<void> fill_data_file(SharedStorage& storage, const CreateSettings& settings) {
  Shard& shard = Shard::current();
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, shard);
  const HostRange all(HostOffset(0), settings.header.size);
  co_await take_space(*access, all, settings.preallocation);
  co_await access->flush();
}

// Beside the image, where it will be looked for. The image's own file is locked by now, so it is
// not taken for another.
Task<void> create_data_file(Graph& graph, const CreateRequest& request,
                            const CreateSettings& settings) {
  const std::string image = request.storage.get("filename").value_or("");
  Options data;
  data.set("filename", path_beside(image, settings.header.data_file_name()));
  co_await graph.create_storage(data, settings.header.size);
  const bool fills = settings.preallocation == Preallocation::kFalloc ||
                     settings.preallocation == Preallocation::kFull;
  if (!fills || settings.header.size.is_zero()) co_return;
  OpenMode mode;
  std::unique_ptr<SharedStorage> storage = co_await graph.open_storage(std::move(data), mode);
  Result<void> filled = co_await fill_data_file(*storage, settings).result();
  co_await close_after(std::move(filled), *storage->node);
}

Task<void> write_with_data_file(Graph& graph, const CreateRequest& request, SharedStorage& storage,
                                const CreateSettings& settings, const Layout& layout,
                                NewEncryption* encryption) {
  if (settings.header.has_data_file()) co_await create_data_file(graph, request, settings);
  co_await write_image(storage, settings, layout, encryption);
}

// Before anything is written: a secret that is not there costs nobody what stood in the file.
Task<std::unique_ptr<NewEncryption>> prepare_encryption(Graph& graph, const CreateRequest& request,
                                                        CreateSettings& settings,
                                                        const DataEncryption* encryption) {
  if (!settings.encryption) co_return std::unique_ptr<NewEncryption>();
  if (!encryption) {
    co_return graph.world().diagnostics.explain(Error::of(ErrorKind::kUnsupported, "create"),
                                                "encryption is not supported here");
  }
  std::unique_ptr<NewEncryption> prepared = co_await encryption->prepare(
      graph, request.storage.get("filename").value_or("image"), *settings.encryption);
  settings.encryption_bytes = prepared->header_bytes();
  CHECK_LE(settings.encryption_bytes.value(), kEncryptionHeaderBytesMax);
  co_return std::move(prepared);
}

}  // namespace

Task<void> create_image(Graph& graph, CreateRequest request, const DataEncryption* encryption) {
  Diagnostics& diagnostics = graph.world().diagnostics;
  CreateSettings settings = co_await parse_create_options(request, diagnostics);
  std::unique_ptr<NewEncryption> fresh =
      co_await prepare_encryption(graph, request, settings, encryption);
  Layout layout = co_await plan_layout(settings, diagnostics);
  Result<std::vector<std::byte>> header = encode_header(settings.header);
  if (!header.ok()) {
    co_await fail(diagnostics.explain(
        header.error(),
        "the backing file's name does not fit a cluster; use a larger cluster_size"));
  }
  co_await graph.create_storage(request.storage, ByteCount(0));
  OpenMode mode;
  std::unique_ptr<SharedStorage> storage = co_await graph.open_storage(request.storage, mode);
  Result<void> written =
      co_await write_with_data_file(graph, request, *storage, settings, layout, fresh.get())
          .result();
  co_await close_after(std::move(written), *storage->node);
}

}  // namespace ringdisk::qcow2
