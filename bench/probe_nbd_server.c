// SPDX-License-Identifier: Apache-2.0
//
// probe_nbd_server: the least that an NBD server does, to find this machine's limit.
//
//   probe_nbd_server SOCKET FILE      (unix socket; prints one line when it listens)
//
// Fixed newstyle handshake with NBD_OPT_GO, NBD_OPT_INFO and NBD_OPT_EXPORT_NAME, simple replies,
// READ, WRITE, FLUSH and DISC over one raw file by plain pread and pwrite through the page cache.
// One thread a connection, which serves requests in their order. It does what any competent
// server does and no more: requests are received through a buffer, as many as the socket holds;
// each reply is one send, its payload read right behind its header. It has no metadata, no
// batching of replies, no queue, no event loop: what a format, scheduling and checking cost shows
// as the distance to it. It is a measuring tool: one file, one export, trusted clients.
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

// The NBD protocol document, sections "Magic values" to "Error values".
enum {
  kFlagFixedNewstyle = 1,
  kFlagNoZeroes = 2,
  kOptionExportName = 1,
  kOptionAbort = 2,
  kOptionInfo = 6,
  kOptionGo = 7,
  kReplyAck = 1,
  kReplyInfo = 3,
  kExportFlags = 1 | 4 | 8 | 256,  // has flags, flush, FUA, multi-conn
  kCommandRead = 0,
  kCommandWrite = 1,
  kCommandDisconnect = 2,
  kCommandFlush = 3,
  kCommandFlagFua = 1,
  kRequestBytes = 28,
  kReplyBytes = 16,
};
static const uint64_t kOptionMagic = 0x49484156454F5054;
static const uint32_t kReplyUnsupported = 0x80000001;
static const uint32_t kRequestMagic = 0x25609513;
static const uint32_t kSimpleReplyMagic = 0x67446698;

enum {
  kPayloadMax = 32 << 20,     // the protocol's usual limit
  kReceiveBytes = 256 << 10,  // the most that one recv takes beyond what is needed
  kInputBytes = kPayloadMax + kReceiveBytes,
};

struct connection {
  int socket, file;
  uint64_t size;
  size_t begin, end;  // what is received and not yet used: input[begin, end)
  char* input;        // kInputBytes; touched only as far as requests reach
  char* output;       // kReplyBytes + kPayloadMax
};

static uint16_t load16(const char* at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return be16toh(value);
}

static uint32_t load32(const char* at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return be32toh(value);
}

static uint64_t load64(const char* at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return be64toh(value);
}

static char* store16(char* at, uint16_t value) {
  value = htobe16(value);
  return (char*)memcpy(at, &value, sizeof value) + sizeof value;
}

static char* store32(char* at, uint32_t value) {
  value = htobe32(value);
  return (char*)memcpy(at, &value, sizeof value) + sizeof value;
}

static char* store64(char* at, uint64_t value) {
  value = htobe64(value);
  return (char*)memcpy(at, &value, sizeof value) + sizeof value;
}

// The next `bytes` (at most kPayloadMax) from the client, in one piece; NULL at the end of the
// stream. Valid until the next call.
static const char* take(struct connection* c, size_t bytes) {
  if (c->begin == c->end) c->begin = c->end = 0;
  if (c->begin + bytes > kInputBytes || (c->end - c->begin < bytes && c->begin > kReceiveBytes)) {
    memmove(c->input, c->input + c->begin, c->end - c->begin);
    c->end -= c->begin;
    c->begin = 0;
  }
  while (c->end - c->begin < bytes) {
    size_t missing = bytes - (c->end - c->begin);
    size_t want = missing > kReceiveBytes ? missing : kReceiveBytes;
    if (want > kInputBytes - c->end) want = kInputBytes - c->end;
    ssize_t got = recv(c->socket, c->input + c->end, want, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return NULL;
    c->end += got;
  }
  const char* at = c->input + c->begin;
  c->begin += bytes;
  return at;
}

static int send_all(int socket, const char* from, size_t bytes) {
  while (bytes) {
    ssize_t sent = send(socket, from, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return 0;
    from += sent;
    bytes -= sent;
  }
  return 1;
}

static int send_option_reply(struct connection* c, uint32_t option, uint32_t type) {
  char reply[32];
  char* at = store64(reply, 0x3e889045565a9);
  at = store32(at, option);
  at = store32(at, type);
  at = store32(at, type == kReplyInfo ? 12 : 0);
  if (type == kReplyInfo) {
    at = store16(at, 0);  // NBD_INFO_EXPORT
    at = store64(at, c->size);
    at = store16(at, kExportFlags);
  }
  return send_all(c->socket, reply, at - reply);
}

// Whatever export name the client asks for, it gets the file. Returns whether transmission begins.
static int negotiate(struct connection* c) {
  char greeting[18];
  memcpy(greeting, "NBDMAGICIHAVEOPT", 16);
  store16(greeting + 16, kFlagFixedNewstyle | kFlagNoZeroes);
  const char* flags;
  if (!send_all(c->socket, greeting, sizeof greeting) || !(flags = take(c, 4))) return 0;
  int no_zeroes = load32(flags) & kFlagNoZeroes;
  for (;;) {
    const char* header = take(c, 16);
    if (!header || load64(header) != kOptionMagic) return 0;
    uint32_t option = load32(header + 8);
    uint32_t length = load32(header + 12);
    if (length > kPayloadMax || !take(c, length)) return 0;
    if (option == kOptionExportName) {
      char reply[134] = {0};
      store16(store64(reply, c->size), kExportFlags);
      return send_all(c->socket, reply, no_zeroes ? 10 : sizeof reply);
    }
    if (option == kOptionGo || option == kOptionInfo) {
      if (!send_option_reply(c, option, kReplyInfo)) return 0;
      if (!send_option_reply(c, option, kReplyAck)) return 0;
      if (option == kOptionGo) return 1;
    } else if (option == kOptionAbort) {
      send_option_reply(c, option, kReplyAck);
      return 0;
    } else if (!send_option_reply(c, option, kReplyUnsupported)) {
      return 0;
    }
  }
}

// Serves one request whose payload, if any, is at `payload`; fills the reply's payload. Returns
// the NBD error.
static uint32_t execute(struct connection* c, int command, int flags, uint64_t offset,
                        uint32_t length, const char* payload) {
  if (command == kCommandFlush) return fdatasync(c->file) ? EIO : 0;
  if (command != kCommandRead && command != kCommandWrite) return EINVAL;
  if (length > kPayloadMax || offset > c->size || length > c->size - offset) return EINVAL;
  if (command == kCommandRead)
    return pread(c->file, c->output + kReplyBytes, length, offset) == (ssize_t)length ? 0 : EIO;
  if (pwrite(c->file, payload, length, offset) != (ssize_t)length) return EIO;
  return (flags & kCommandFlagFua) && fdatasync(c->file) ? EIO : 0;
}

static void transmit(struct connection* c) {
  for (;;) {
    const char* request = take(c, kRequestBytes);
    if (!request || load32(request) != kRequestMagic) return;
    int flags = load16(request + 4);
    int command = load16(request + 6);
    uint64_t offset = load64(request + 16);
    uint32_t length = load32(request + 24);
    char* reply = store32(c->output, kSimpleReplyMagic) + 4;
    memcpy(reply, request + 8, 8);  // the cookie, as it came
    if (command == kCommandDisconnect) return;
    const char* payload = NULL;
    if (command == kCommandWrite && (length > kPayloadMax || !(payload = take(c, length)))) return;
    uint32_t error = execute(c, command, flags, offset, length, payload);
    store32(c->output + 4, error);
    size_t bytes = kReplyBytes + (command == kCommandRead && !error ? length : 0);
    if (!send_all(c->socket, c->output, bytes)) return;
  }
}

static void* serve(void* argument) {
  struct connection* c = argument;
  if (negotiate(c)) transmit(c);
  close(c->socket);
  free(c->input);
  free(c->output);
  free(c);
  return NULL;
}

static void fail(const char* what) {
  fprintf(stderr, "probe_nbd_server: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int listen_on(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    fail(path);
  }
  strcpy(address.sun_path, path);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr*)&address, sizeof address) ||
      listen(listener, 16))
    fail(path);
  return listener;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: probe_nbd_server SOCKET FILE\n");
    return 2;
  }
  int file = open(argv[2], O_RDWR | O_CLOEXEC);
  struct stat status;
  if (file < 0 || fstat(file, &status)) fail(argv[2]);
  int listener = listen_on(argv[1]);
  printf("probe_nbd_server: ready on %s\n", argv[1]);
  fflush(stdout);
  for (;;) {
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) fail("accept");
    struct connection* c = malloc(sizeof *c);
    pthread_t thread;
    if (!c) fail("memory");
    *c = (struct connection){.socket = client, .file = file, .size = status.st_size};
    c->input = malloc(kInputBytes);
    c->output = malloc(kReplyBytes + kPayloadMax);
    if (!c->input || !c->output) fail("memory");
    errno = pthread_create(&thread, NULL, serve, c);
    if (errno) fail("thread");
    pthread_detach(thread);
  }
}
