// SPDX-License-Identifier: Apache-2.0
//
// probe_copy: the least that copying a file with every core costs on this machine.
//
//   probe_copy SOURCE TARGET [THREADS]        (2 threads unless named)
//
// Each thread copies its equal part of SOURCE to the same place of TARGET by plain pread and
// pwrite in blocks of 1 MiB; at the end one fdatasync, as a copy that is to last must. TARGET is
// not truncated first: an existing file of the same size is overwritten in place, an absent one
// is made. Both are measured, since the first touch of a page costs more than the copy.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { kBlockBytes = 1 << 20, kThreadsMax = 64 };

struct part {
  int source, target;
  off_t begin, end;
  pthread_t thread;
};

static void fail(const char* what) {
  fprintf(stderr, "probe_copy: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void* copy(void* argument) {
  const struct part* part = argument;
  char* block = aligned_alloc(4096, kBlockBytes);
  if (!block) fail("memory");
  for (off_t at = part->begin; at < part->end;) {
    size_t bytes = part->end - at < kBlockBytes ? (size_t)(part->end - at) : kBlockBytes;
    ssize_t got = pread(part->source, block, bytes, at);
    if (got <= 0) fail("read");
    if (pwrite(part->target, block, got, at) != got) fail("write");
    at += got;
  }
  free(block);
  return NULL;
}

int main(int argc, char** argv) {
  int threads = argc > 3 ? atoi(argv[3]) : 2;
  if (argc < 3 || argc > 4 || threads < 1 || threads > kThreadsMax) {
    fprintf(stderr, "usage: probe_copy SOURCE TARGET [THREADS]\n");
    return 2;
  }
  int source = open(argv[1], O_RDONLY);
  struct stat status;
  if (source < 0 || fstat(source, &status)) fail(argv[1]);
  int target = open(argv[2], O_WRONLY | O_CREAT, 0644);
  if (target < 0 || ftruncate(target, status.st_size)) fail(argv[2]);

  struct part parts[kThreadsMax];
  off_t blocks = (status.st_size + kBlockBytes - 1) / kBlockBytes;
  for (int i = 0; i < threads; i++) {
    off_t end = blocks * (i + 1) / threads * kBlockBytes;
    parts[i] = (struct part){.source = source,
                             .target = target,
                             .begin = blocks * i / threads * kBlockBytes,
                             .end = end < status.st_size ? end : status.st_size};
    errno = pthread_create(&parts[i].thread, NULL, copy, &parts[i]);
    if (errno) fail("thread");
  }
  for (int i = 0; i < threads; i++) pthread_join(parts[i].thread, NULL);
  if (fdatasync(target) || close(target)) fail(argv[2]);
  return 0;
}
