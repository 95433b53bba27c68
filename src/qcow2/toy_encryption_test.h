// SPDX-License-Identifier: Apache-2.0
// For tests: an encryption that costs nothing. Its header is a clusterful of a known word, which
// every opening looks at, so that who writes over it is found; its cipher is the exclusive or with
// a number that depends on the sector in the file, so that bytes which went around the view, or
// were moved as they are, read as noise. What is behind it behaves as luks/view.h does.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "base/endian.h"
#include "block/data_encryption.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {

inline constexpr uint64_t kToyHeaderBytes = 3 * 512;
inline constexpr uint64_t kToyWord = 0x746f792068656164;

inline std::vector<std::byte> toy_header() {
  std::vector<std::byte> bytes(kToyHeaderBytes);
  for (size_t i = 0; i < bytes.size(); i += 8) store_be64(&bytes[i], kToyWord);
  return bytes;
}

inline void apply_toy_cipher(uint64_t offset, MutableBytes bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint64_t at = offset + i;
    const uint64_t mask = (at / 512 + 1) * 0x9e3779b97f4a7c15;
    bytes[i] ^= static_cast<std::byte>(mask >> (8 * (at % 8)));
  }
}

class ToyQueue final : public StorageQueue {
 public:
  ToyQueue(std::unique_ptr<StorageAccess> file, Shard& shard)
      : file_(std::move(file)), shard_(shard) {}

  Task<void> read(HostOffset offset, MutableBuffers target) override {
    co_await file_->read(offset, target);
    uint64_t at = offset.value();
    target.for_each([&](MutableBytes piece) {
      apply_toy_cipher(at, piece);
      at += piece.size();
    });
  }
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) override {
    Buffer buffer = shard_.buffers().take(source.size());
    const MutableBytes bytes = buffer.first(source.size());
    copy_from_buffers(source, bytes);
    apply_toy_cipher(offset.value(), bytes);
    co_await file_->write(offset, ConstBuffers(Bytes(bytes)), options);
  }
  Task<void> write_zeroes(HostRange range, ZeroOptions options) override {
    if (options.fast_only) co_await fail(Error::of(ErrorKind::kUnsupported, "write zeroes"));
    constexpr uint64_t kPiece = 64 * 1024;
    const std::vector<std::byte> zeros(std::min(kPiece, range.length.value()));
    for (uint64_t done = 0; done < range.length.value(); done += kPiece) {
      const uint64_t length = std::min(kPiece, range.length.value() - done);
      const ConstBuffers source(Bytes(zeros).first(length));
      WriteOptions write_options;
      write_options.fua = options.fua;
      co_await write(range.offset + ByteCount(done), source, write_options);
    }
  }
  Task<void> discard(HostRange) override { co_return; }
  Task<void> flush() override { return file_->flush(); }
  Task<StorageExtent> find_extent(HostRange range) override {
    co_return StorageExtent{range.length, false};
  }
  Task<void> resize(ByteCount size) override { return file_->resize(size); }
  Task<void> allocate(HostRange range) override { return file_->allocate(range); }

 private:
  const std::unique_ptr<StorageAccess> file_;
  Shard& shard_;
};

class ToyView final : public StorageNode {
 public:
  ToyView(SharedStorage& file, Diagnostics& diagnostics)
      : StorageNode(file.node->name(), file.node->id()), file_(file), limits_(file.node->limits()) {
    limits_.error_beyond_end = diagnostics.explain(Error::of(ErrorKind::kCorrupt, "read"),
                                                   file.node->id(), "has been cut short");
    limits_.block_size = 512;  // not the file's, in which metadata may share a block
    limits_.grown_reads_zero = limits_.fast_zero = limits_.unmaps = false;
  }

  const char* driver() const override { return "toy"; }
  const StorageLimits& limits() const override { return limits_; }
  ByteCount size() const override { return file_.node->size(); }
  Task<ByteCount> allocated_size() override { return file_.node->allocated_size(); }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override {
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(file_, shard);
    std::unique_ptr<StorageQueue> queue = std::make_unique<ToyQueue>(std::move(access), shard);
    co_return std::move(queue);
  }
  Task<void> close() override { co_return; }

 private:
  SharedStorage& file_;
  StorageLimits limits_;
};

class NewToyEncryption final : public NewEncryption {
 public:
  ByteCount header_bytes() const override { return ByteCount(kToyHeaderBytes); }
  Task<void> write_header(SharedStorage& file, HostRange place) override {
    CHECK_EQ(place.length.value(), kToyHeaderBytes);
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(file, Shard::current());
    const std::vector<std::byte> bytes = toy_header();
    co_await access->write(place.offset, ConstBuffers(Bytes(bytes)));
  }
};

// Options: key-secret, which is "right".
class ToyEncryption final : public DataEncryption {
 public:
  using Lines = std::vector<std::pair<std::string, std::string>>;
  std::string_view name() const override { return "luks"; }
  Lines create_options() const override { return {{"key-secret=<str>", "right"}}; }
  Lines amend_options() const override { return {{"state=<str>", "active or inactive"}}; }
  DriverWords open_words() const override { return {"key-secret"}; }

  Result<ByteCount> measure(Diagnostics& diagnostics, Options options) const override {
    options.take("key-secret");
    RETURN_IF_ERROR(options.check_all_taken("toy", diagnostics));
    return ByteCount(kToyHeaderBytes);
  }
  Task<std::unique_ptr<NewEncryption>> prepare(Graph& graph, std::string,
                                               Options options) const override {
    co_await check_key(options);
    co_await options.check_all_taken("toy", graph.world().diagnostics);
    co_return std::make_unique<NewToyEncryption>();
  }
  Task<std::unique_ptr<SharedStorage>> open_view(Graph& graph, SharedStorage& file,
                                                 HostRange header, Options options) const override {
    co_await check_key(options);
    co_await options.check_all_taken("toy", graph.world().diagnostics);
    co_await expect_header(file, header);
    co_return std::make_unique<SharedStorage>(
        std::make_unique<ToyView>(file, graph.world().diagnostics));
  }
  Task<std::vector<DescribedField>> describe(const World&, StorageAccess&,
                                             HostRange header) const override {
    DescribedField field;
    field.key = "payload-offset";
    field.kind = DescribedField::Kind::kNumber;
    field.number = header.length.value();
    std::vector<DescribedField> fields;
    fields.push_back(std::move(field));
    co_return std::move(fields);
  }
  Task<void> amend(Graph& graph, SharedStorage& file, HostRange header,
                   Options options) const override {
    options.take("state");
    co_await options.check_all_taken("toy", graph.world().diagnostics);
    co_await expect_header(file, header);
    amended_ = true;
  }
  bool was_amended() const { return amended_; }

 private:
  static Result<void> check_key(Options& options) {
    if (options.take("key-secret").value_or("right") == "right") return {};
    return Error::of(ErrorKind::kDenied, "open");
  }
  static Task<void> expect_header(SharedStorage& file, HostRange header) {
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(file, Shard::current());
    std::vector<std::byte> bytes(kToyHeaderBytes);
    if (header.length.value() != kToyHeaderBytes) {
      co_await fail(Error::of(ErrorKind::kCorrupt, "open"));
    }
    co_await access->read(header.offset, MutableBuffers(MutableBytes(bytes)));
    if (bytes != toy_header()) co_await fail(Error::of(ErrorKind::kCorrupt, "open"));
  }

  mutable bool amended_ = false;
};

// Shared by the tests of a process: it has no state that one of them could spoil.
inline const DataEncryption& toy_encryption() {
  static const ToyEncryption encryption;
  return encryption;
}

}  // namespace ringdisk::qcow2
