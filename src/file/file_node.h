// SPDX-License-Identifier: Apache-2.0
// file: a regular file or a block device as a storage.
//
//   driver=file,filename=disk.img,cache=none,locking=auto,discard=unmap
//
// A FileNode holds one open file description, with its locks (file/file_lock.h), and what its
// queues share (file/file_state.h). Opening, locking, closing and stat run in the blocking pool.
#pragma once

#include <memory>
#include <string>

#include "block/graph.h"
#include "block/storage.h"
#include "file/file_state.h"

namespace ringdisk::file {

class FileNode final : public StorageNode {
 public:
  FileNode(std::string name, uint32_t id, OpenedFile opened, FileSettings settings,
           BlockingPool& pool);

  const char* driver() const override { return "file"; }
  const StorageLimits& limits() const override { return limits_; }
  ByteCount size() const override { return ByteCount(state_.size()); }
  Task<ByteCount> allocated_size() override;
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override;
  Task<void> close() override;

  // What was found out when it was opened. Any thread.
  const FileFacts& facts() const { return state_.facts; }

 private:
  FileDescriptor descriptor_;  // the closing shard only
  FileState state_;
  const StorageLimits limits_;
};

// Options: filename; cache (as -t; default: OpenMode's) or cache.direct and cache.no-flush;
// locking=auto|on|off; discard=unmap|ignore. Creating takes filename and locking alone.
// `offers_share`: who reads what others write to could say -U (OpenMode::share), and is told so.
StorageDriver file_driver(bool offers_share = true);

}  // namespace ringdisk::file
