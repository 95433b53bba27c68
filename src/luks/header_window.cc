// SPDX-License-Identifier: Apache-2.0
// Offsets of headers to offsets of storages, within bounds.
#include "luks/header_window.h"

#include <algorithm>

#include "base/limits.h"

namespace ringdisk::luks {

ByteCount HeaderWindow::size() const {
  if (length_) return *length_;
  const ByteCount all = storage_->size();
  return all.value() > start_.value() ? all - ByteCount(start_.value()) : ByteCount(0);
}

Result<void> HeaderWindow::admit(const World& world, HostRange range) const {
  const bool has_end = length_ || !storage_->limits().grows;
  if (!has_end || range.end().value() <= size().value()) return {};
  return refusal(world)(ErrorKind::kNoSpace,
                        "the LUKS header needs " + std::to_string(range.end().value()) +
                            " bytes; there is room for " + std::to_string(size().value()));
}

Task<void> HeaderWindow::read(const World& world, HostOffset at, MutableBytes target) const {
  const uint64_t there = size().value();
  if (at.value() > there || target.size() > there - at.value()) {
    co_await fail(refusal(world).corrupt("the file ends within its LUKS header"));
  }
  while (!target.empty()) {
    const MutableBytes piece =
        target.first(std::min<size_t>(target.size(), limits::kRequestBytesMax));
    const HostOffset from = start_ + ByteCount(at.value());
    co_await storage_->read(from, MutableBuffers(piece));
    target = target.subspan(piece.size());
    at += ByteCount(piece.size());
  }
}

Task<void> HeaderWindow::write(const World& world, HostOffset at, Bytes source) const {
  co_await admit(world, HostRange(at, ByteCount(source.size())));
  while (!source.empty()) {
    const Bytes piece = source.first(std::min<size_t>(source.size(), limits::kRequestBytesMax));
    const HostOffset to = start_ + ByteCount(at.value());
    co_await storage_->write(to, ConstBuffers(piece), WriteOptions());
    source = source.subspan(piece.size());
    at += ByteCount(piece.size());
  }
}

Task<void> HeaderWindow::write_zeroes(const World& world, HostRange range) const {
  co_await admit(world, range);
  const HostRange there(start_ + ByteCount(range.offset.value()), range.length);
  ZeroOptions options;
  options.may_unmap = false;
  co_await storage_->write_zeroes(there, options);
}

Task<StorageExtent> HeaderWindow::find_extent(HostRange range) const {
  const HostRange there(start_ + ByteCount(range.offset.value()), range.length);
  StorageExtent extent = co_await storage_->find_extent(there);
  co_return extent;
}

Task<void> HeaderWindow::flush() const { co_await storage_->flush(); }

}  // namespace ringdisk::luks
