// SPDX-License-Identifier: Apache-2.0
// What storage filters have in common: a node that owns the storage it wraps, a queue that passes
// everything on, and a queue with a hook before and after every operation (delay, fault).
//
//   caller ─> HookedQueue: before(write, range) ─> child.write ─> after(write, range) ─> caller
//
// A failing before() ends the operation undone; a failing after() reports failure of what was done.
// The child's own error comes first.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "block/storage.h"
#include "block/storage_access.h"

namespace ringdisk {

enum class StorageOperation : uint8_t {
  kRead,
  kWrite,
  kWriteZeroes,
  kDiscard,
  kFlush,
  kFindExtent,
  kResize,
  kAllocate,
};
inline constexpr unsigned kStorageOperations = 8;
// "read", "write", "write-zeroes", …
std::string_view name_of(StorageOperation operation);

// A set of operations.
class StorageOperations {
 public:
  constexpr StorageOperations() = default;
  constexpr StorageOperations(StorageOperation one) : bits_(1u << static_cast<unsigned>(one)) {}
  static constexpr StorageOperations all() {
    StorageOperations set;
    set.bits_ = (1u << kStorageOperations) - 1;
    return set;
  }
  // "read+write", "all"; nullopt for anything else.
  static std::optional<StorageOperations> parse(std::string_view text);

  constexpr bool has(StorageOperation one) const {
    return ((bits_ >> static_cast<unsigned>(one)) & 1u) != 0;
  }
  friend constexpr StorageOperations operator|(StorageOperations a, StorageOperations b) {
    a.bits_ |= b.bits_;
    return a;
  }

 private:
  unsigned bits_ = 0;
};

// A node that says of itself what its child says. Filters derive from it and give their own queue.
class StorageFilter : public StorageNode {
 public:
  explicit StorageFilter(std::unique_ptr<SharedStorage> child)
      : StorageNode(child->node->name(), child->node->id()), child_(std::move(child)) {}

  StorageNode& child() { return *child_->node; }
  const StorageNode& child() const { return *child_->node; }

  const StorageLimits& limits() const override { return child().limits(); }
  ByteCount size() const override { return child().size(); }
  Task<ByteCount> allocated_size() override { return child().allocated_size(); }
  Task<void> close() override { return child().close(); }

 private:
  const std::unique_ptr<SharedStorage> child_;
};

// Passes everything on.
class FilterQueue : public StorageQueue {
 public:
  explicit FilterQueue(std::unique_ptr<StorageQueue> child) : child_(std::move(child)) {}

  Task<void> read(HostOffset offset, MutableBuffers target) override {
    return child_->read(offset, target);
  }
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) override {
    return child_->write(offset, source, options);
  }
  Task<void> write_zeroes(HostRange range, ZeroOptions options) override {
    return child_->write_zeroes(range, options);
  }
  Task<void> discard(HostRange range) override { return child_->discard(range); }
  Task<void> flush() override { return child_->flush(); }
  Task<StorageExtent> find_extent(HostRange range) override { return child_->find_extent(range); }
  Task<void> resize(ByteCount size) override { return child_->resize(size); }
  Task<void> allocate(HostRange range) override { return child_->allocate(range); }

 protected:
  StorageQueue& child() { return *child_; }

 private:
  const std::unique_ptr<StorageQueue> child_;
};

// Calls before() and after() around every operation.
class HookedQueue : public FilterQueue {
 public:
  using FilterQueue::FilterQueue;

  Task<void> read(HostOffset offset, MutableBuffers target) final;
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) final;
  Task<void> write_zeroes(HostRange range, ZeroOptions options) final;
  Task<void> discard(HostRange range) final;
  Task<void> flush() final;
  Task<StorageExtent> find_extent(HostRange range) final;
  Task<void> resize(ByteCount size) final;
  Task<void> allocate(HostRange range) final;

 protected:
  // `range` is empty for a flush, and [size, size) for a resize. What before() gives for an
  // operation is handed to its after().
  virtual Task<int> before(StorageOperation operation, HostRange range) = 0;
  virtual Task<void> after(StorageOperation operation, HostRange range, int from_before) = 0;

 private:
  Task<void> finish(StorageOperation operation, HostRange range, int from_before,
                    Result<void> done);
};

}  // namespace ringdisk
