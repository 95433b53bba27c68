// SPDX-License-Identifier: Apache-2.0
// Gathering and sending.
#include "nbd/reply_writer.h"

#include <algorithm>

#include "nbd/reply.h"

namespace ringdisk::nbd {

void ReplyWriter::add(Request& request) {
  compose_reply(request);
  outgoing_.push_back(request);
  wanted_.set();
}

void ReplyWriter::close() {
  closed_ = true;
  wanted_.set();
}

// Moves replies from outgoing_ to sending_, at least one; gives the number of their parts.
size_t ReplyWriter::gather() {
  size_t count = 0, bytes = 0;
  while (!outgoing_.empty()) {
    Request& next = outgoing_.front();
    bool fits = count + next.part_count <= kPartsMax && bytes + next.reply_bytes <= kBytesMax;
    if (count != 0 && !fits) break;
    outgoing_.pop_front();
    sending_.push_back(next);
    std::copy_n(next.parts.begin(), next.part_count, parts_.begin() + count);
    count += next.part_count;
    bytes += next.reply_bytes;
    ++replies_;
  }
  return count;
}

Task<void> ReplyWriter::send_gathered(size_t parts) {
  ConstBuffers source(parts_.data(), parts);
  ++sends_;
  Result<void> sent = co_await stream_.write_all(source, CancelToken()).result();
  if (!sent.ok()) {
    broken_ = true;
    reading_.cancel();
  }
}

Task<void> ReplyWriter::run() {
  while (true) {
    if (outgoing_.empty()) {
      if (closed_ && pool_.in_flight() == 0) break;
      wanted_.reset();
      co_await wanted_.wait();
      continue;
    }
    size_t parts = gather();
    if (!broken_) co_await send_gathered(parts);
    while (!sending_.empty()) pool_.give_back(sending_.pop_front());
  }
  ended_.set();
}

}  // namespace ringdisk::nbd
