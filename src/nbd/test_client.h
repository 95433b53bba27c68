// SPDX-License-Identifier: Apache-2.0
// TestClient: a client for tests that knows the NBD protocol on its own: it shares no constant and
// no function with wire.h, so that a wrong number there does not agree with itself here. It says
// what it is told to, right or wrong. Bytes are std::string; replies are taken apart as they come.
// One shard.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "async/task.h"
#include "runtime/network.h"
#include "runtime/shard.h"

namespace ringdisk::nbd {

inline std::string big_endian(uint64_t value, size_t bytes) {
  std::string text;
  for (size_t i = bytes; i-- > 0;) text += static_cast<char>(value >> (8 * i));
  return text;
}
inline std::string be16(uint64_t value) { return big_endian(value, 2); }
inline std::string be32(uint64_t value) { return big_endian(value, 4); }
inline std::string be64(uint64_t value) { return big_endian(value, 8); }

inline uint64_t number_at(const std::string& text, size_t at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | static_cast<uint8_t>(text.at(at + i));
  return value;
}

class TestClient {
 public:
  struct OptionAnswer {
    uint32_t option = 0;
    uint32_t type = 0;
    std::string payload;
  };
  struct Chunk {
    uint16_t flags = 0;
    uint16_t type = 0;
    std::string payload;
  };
  struct Reply {
    uint64_t cookie = 0;
    uint32_t error = 0;         // of a simple reply, or of an error chunk
    std::string read;           // data put together from whatever form they came in
    std::vector<Chunk> chunks;  // empty: a simple reply
  };

  explicit TestClient(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}

  static Task<std::unique_ptr<TestClient>> connect(Network& network, Address address) {
    std::unique_ptr<Connection> connection = co_await network.connect(std::move(address));
    auto client = std::make_unique<TestClient>(connection->open_stream(Shard::current()));
    co_return std::move(client);
  }

  Stream& stream() { return *stream_; }

  Task<void> send(std::string bytes) {
    Bytes source = as_bytes(bytes);
    co_await stream_->write_all(ConstBuffers(source), CancelToken());
  }
  // Exactly `count` bytes; kProtocol when the server closes before.
  Task<std::string> receive(size_t count) {
    std::string bytes(count, '\0');
    for (size_t done = 0; done < count;) {
      MutableBytes rest = std::as_writable_bytes(std::span(bytes)).subspan(done);
      size_t more = co_await stream_->read_some(rest, CancelToken());
      if (more == 0) co_return Error::of(ErrorKind::kProtocol, "test client: receive");
      done += more;
    }
    co_return std::move(bytes);
  }
  // Throws away what comes until the server closes. An error counts as closed.
  Task<size_t> drain() {
    size_t total = 0;
    std::string bytes(65536, '\0');
    while (true) {
      MutableBytes target = std::as_writable_bytes(std::span(bytes));
      Result<size_t> more = co_await stream_->read_some(target, CancelToken()).result();
      if (!more.ok() || more.value() == 0) break;
      total += more.value();
    }
    co_return total;
  }
  Task<void> drain_all() { co_await drain(); }

  // --- handshake ---------------------------------------------------------------------------------

  Task<void> greet(uint32_t client_flags = 3) {
    std::string greeting = co_await receive(18);
    if (greeting != std::string("NBDMAGICIHAVEOPT\0\3", 18)) {
      co_await fail(Error::of(ErrorKind::kProtocol, "test client: greeting"));
    }
    co_await send(be32(client_flags));
  }
  static std::string option(uint32_t option, const std::string& payload) {
    return "IHAVEOPT" + be32(option) + be32(payload.size()) + payload;
  }
  Task<OptionAnswer> receive_option_answer() {
    std::string header = co_await receive(20);
    if (number_at(header, 0, 8) != 0x3e889045565a9) {
      co_return Error::of(ErrorKind::kProtocol, "test client: option reply");
    }
    OptionAnswer answer;
    answer.option = static_cast<uint32_t>(number_at(header, 8, 4));
    answer.type = static_cast<uint32_t>(number_at(header, 12, 4));
    answer.payload = co_await receive(number_at(header, 16, 4));
    co_return std::move(answer);
  }
  // Sends an option and collects its answers, up to an acknowledgement or an error.
  Task<std::vector<OptionAnswer>> ask(uint32_t option_number, std::string payload) {
    co_await send(option(option_number, payload));
    std::vector<OptionAnswer> answers;
    while (answers.empty() || (answers.back().type != 1 && answers.back().type < 0x80000000)) {
      OptionAnswer answer = co_await receive_option_answer();
      answers.push_back(std::move(answer));
    }
    co_return std::move(answers);
  }
  // Of INFO and GO; `wanted` are information types.
  template <class... Types>
  static std::string info_request(const std::string& name, Types... wanted) {
    return be32(name.size()) + name + be16(sizeof...(wanted)) +
           (std::string() + ... + be16(static_cast<uint64_t>(wanted)));
  }
  template <class... Queries>
  static std::string meta_request(const std::string& name, const Queries&... queries) {
    return be32(name.size()) + name + be32(sizeof...(queries)) +
           (std::string() + ... + string_with_length(queries));
  }
  // The usual way in. kProtocol when one of the steps is refused. With structured replies,
  // base:allocation is selected unless `contexts` says no.
  Task<void> go(std::string name, bool structured, bool contexts = true) {
    co_await greet();
    if (structured) {
      std::vector<OptionAnswer> answers = co_await ask(8, "");
      co_await check_acknowledged(answers);
      structured_ = true;
    }
    if (structured && contexts) {
      std::vector<OptionAnswer> answers = co_await ask(10, meta_request(name, "base:allocation"));
      co_await check_acknowledged(answers);
    }
    std::vector<OptionAnswer> answers = co_await ask(7, info_request(name));
    co_await check_acknowledged(answers);
    export_size = number_at(answers.front().payload, 2, 8);
    export_flags = static_cast<uint16_t>(number_at(answers.front().payload, 10, 2));
  }
  // For those who negotiate them by themselves.
  void expect_structured_replies() { structured_ = true; }
  uint64_t export_size = 0;
  uint16_t export_flags = 0;

  // --- transmission ------------------------------------------------------------------------------

  std::string request(uint16_t type, uint16_t flags, uint64_t offset, uint64_t length,
                      const std::string& payload = "") {
    uint64_t cookie = next_cookie_++;
    awaited_[cookie] = {type, offset, length};
    return be32(0x25609513) + be16(flags) + be16(type) + be64(cookie) + be64(offset) +
           be32(length) + payload;
  }
  uint64_t last_cookie() const { return next_cookie_ - 1; }

  Task<Reply> receive_reply() {
    Reply reply;
    bool done = false;
    while (!done) {
      std::string magic = co_await receive(4);
      if (number_at(magic, 0, 4) == 0x67446698) {
        co_await receive_simple(reply);
        done = true;
      } else if (structured_ && number_at(magic, 0, 4) == 0x668e33ef) {
        done = co_await receive_chunk(reply);
      } else {
        co_return Error::of(ErrorKind::kProtocol, "test client: reply magic");
      }
    }
    awaited_.erase(reply.cookie);
    co_return std::move(reply);
  }
  // One request and its reply, with nothing else under way.
  Task<Reply> call(uint16_t type, uint16_t flags, uint64_t offset, uint64_t length,
                   std::string payload = "") {
    co_await send(request(type, flags, offset, length, payload));
    Reply reply = co_await receive_reply();
    co_return std::move(reply);
  }
  Task<void> disconnect() { co_await send(request(2, 0, 0, 0)); }
  size_t awaited() const { return awaited_.size(); }

 private:
  static std::string string_with_length(const std::string& text) {
    return be32(text.size()) + text;
  }
  struct Awaited {
    uint16_t type;
    uint64_t offset;
    uint64_t length;
  };

  static Result<void> check_acknowledged(const std::vector<OptionAnswer>& answers) {
    if (answers.back().type == 1) return {};
    return Error::of(ErrorKind::kProtocol, "test client: option refused");
  }
  Task<void> receive_simple(Reply& reply) {
    std::string rest = co_await receive(12);
    reply.error = static_cast<uint32_t>(number_at(rest, 0, 4));
    reply.cookie = number_at(rest, 4, 8);
    auto found = awaited_.find(reply.cookie);
    if (found == awaited_.end()) {
      co_await fail(Error::of(ErrorKind::kProtocol, "test client: unknown cookie"));
    }
    bool is_read = found->second.type == 0;
    if (is_read && structured_) {
      co_await fail(Error::of(ErrorKind::kProtocol, "test client: simple reply to a read"));
    }
    if (is_read && reply.error == 0) reply.read = co_await receive(found->second.length);
  }
  // True: it was the last one. Chunks of different replies are never mixed by this server.
  Task<bool> receive_chunk(Reply& reply) {
    std::string header = co_await receive(16);
    Chunk chunk;
    chunk.flags = static_cast<uint16_t>(number_at(header, 0, 2));
    chunk.type = static_cast<uint16_t>(number_at(header, 2, 2));
    reply.cookie = number_at(header, 4, 8);
    chunk.payload = co_await receive(number_at(header, 12, 4));
    auto found = awaited_.find(reply.cookie);
    if (found == awaited_.end()) {
      co_return Error::of(ErrorKind::kProtocol, "test client: unknown cookie");
    }
    take_payload(reply, chunk, found->second);
    bool done = (chunk.flags & 1) != 0;
    reply.chunks.push_back(std::move(chunk));
    co_return done;
  }
  static void take_payload(Reply& reply, const Chunk& chunk, const Awaited& awaited) {
    if (chunk.type >= 0x8000) {
      reply.error = static_cast<uint32_t>(number_at(chunk.payload, 0, 4));
    } else if (chunk.type == 1 || chunk.type == 2) {
      size_t at = number_at(chunk.payload, 0, 8) - awaited.offset;
      std::string bytes = chunk.type == 1 ? chunk.payload.substr(8)
                                          : std::string(number_at(chunk.payload, 8, 4), '\0');
      if (reply.read.size() < at + bytes.size()) reply.read.resize(at + bytes.size(), '?');
      reply.read.replace(at, bytes.size(), bytes);
    }
  }

  std::unique_ptr<Stream> stream_;
  bool structured_ = false;
  uint64_t next_cookie_ = 0x1000;
  std::map<uint64_t, Awaited> awaited_;
};

}  // namespace ringdisk::nbd
