// SPDX-License-Identifier: Apache-2.0
// recv and sendmsg without blocking; a poll through the loop when the socket says "not now".
#include "runtime/socket_stream.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr size_t kPartsMax = 256;  // iovecs of one sendmsg: a full batch of NBD replies

class PollCancel final : public CancelListener {
 public:
  PollCancel(Loop& loop, IoRequest& request) : loop_(loop), request_(request) {}
  void on_cancel() override { loop_.cancel(request_); }

 private:
  Loop& loop_;
  IoRequest& request_;
};

class SocketStream final : public Stream {
 public:
  SocketStream(FileDescriptor socket, Shard& shard) : socket_(std::move(socket)), shard_(shard) {}
  Task<size_t> read_some(MutableBytes target, CancelToken token) override;
  Task<void> write_all(ConstBuffers source, CancelToken token) override;
  void shut_down() override { ::shutdown(socket_.get(), SHUT_RDWR); }

 private:
  Result<size_t> try_send(const ConstBuffers& source);

  FileDescriptor socket_;
  Shard& shard_;
};

Task<size_t> SocketStream::read_some(MutableBytes target, CancelToken token) {
  for (;;) {
    if (token.is_cancelled()) co_return Error::of(ErrorKind::kCancelled, "receive");
    ssize_t received = recv(socket_.get(), target.data(), target.size(), MSG_DONTWAIT);
    if (received >= 0) co_return static_cast<size_t>(received);
    if (errno == EINTR) continue;
    if (errno != EAGAIN) co_return Error::from_errno(errno, "receive");
    co_await wait_until_ready(shard_, socket_.get(), IoOpcode::kPollIn, token);
  }
}

// Bytes sent, 0 when the socket takes nothing now.
Result<size_t> SocketStream::try_send(const ConstBuffers& source) {
  iovec parts[kPartsMax];
  size_t bytes = 0;
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = source.to_iovecs(parts, kPartsMax, bytes);
  for (;;) {
    ssize_t sent = sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<size_t>(sent);
    if (errno == EAGAIN) return size_t{0};
    if (errno != EINTR) return Error::from_errno(errno, "send");
  }
}

Task<void> SocketStream::write_all(ConstBuffers source, CancelToken token) {
  for (size_t done = 0; done < source.size();) {
    if (token.is_cancelled()) co_await fail(Error::of(ErrorKind::kCancelled, "send"));
    size_t sent = co_await try_send(source.slice(done, source.size() - done));
    done += sent;
    if (sent == 0) co_await wait_until_ready(shard_, socket_.get(), IoOpcode::kPollOut, token);
  }
}

}  // namespace

std::unique_ptr<Stream> make_socket_stream(FileDescriptor socket, Shard& shard) {
  return std::make_unique<SocketStream>(std::move(socket), shard);
}

Task<void> wait_until_ready(Shard& shard, int fd, IoOpcode in_or_out, CancelToken token) {
  IoRequest request = IoRequest::poll(fd, in_or_out);
  PollCancel cancel(shard.loop(), request);
  token.listen(cancel);
  int32_t ready = co_await shard.loop().perform(request);
  if (token.is_cancelled()) co_await fail(Error::of(ErrorKind::kCancelled, "wait for a socket"));
  if (ready < 0) co_await fail(Error::from_errno(-ready, "wait for a socket"));
}

}  // namespace ringdisk
