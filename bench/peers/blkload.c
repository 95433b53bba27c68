// SPDX-License-Identifier: Apache-2.0
//
// blkload: random-access load over libblkio, for measuring block exports with a client that is
// not ours.
//
//   blkload DRIVER PATH QUEUES DEPTH BYTES READ% SECONDS SPAN_MIB
//   blkload virtio-blk-vhost-user /run/x.sock 2 64 4096 100 5 1024
//
// One thread a queue keeps DEPTH requests of BYTES in flight at random places of the first
// SPAN_MIB; READ% of them read, the rest write. Prints requests a second over all queues, and
// MB/s. Any failed request ends the run with exit status 1. bench/peers/setup builds it, against
// its own libblkio.
#define _GNU_SOURCE
#include <blkio.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { kReap = 256 };

struct load {
  struct blkio* device;
  char* buffers;
  int depth, read_percent;
  size_t bytes;
  double seconds;
  uint64_t blocks;
};

struct worker {
  const struct load* load;
  int queue;
  uint64_t done;
  pthread_t thread;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void check(int result, const char* what) {
  if (result >= 0) return;
  fprintf(stderr, "blkload: %s: %s (%s)\n", what, strerror(-result), blkio_get_error_msg());
  exit(1);
}

static void submit(struct blkioq* queue, const struct load* load, char* buffers, long slot,
                   unsigned* seed) {
  uint64_t block = (((uint64_t)rand_r(seed) << 20) ^ (uint64_t)rand_r(seed)) % load->blocks;
  char* buffer = buffers + slot * load->bytes;
  void* tag = (void*)(intptr_t)slot;
  if ((int)(rand_r(seed) % 100) < load->read_percent)
    blkioq_read(queue, block * load->bytes, buffer, load->bytes, tag, 0);
  else
    blkioq_write(queue, block * load->bytes, buffer, load->bytes, tag, 0);
}

static void* run(void* argument) {
  struct worker* worker = argument;
  const struct load* load = worker->load;
  struct blkioq* queue = blkio_get_queue(load->device, worker->queue);
  char* buffers = load->buffers + (size_t)worker->queue * load->depth * load->bytes;
  unsigned seed = worker->queue * 7919 + 13;
  double end = now() + load->seconds;
  struct blkio_completion completions[kReap];
  int in_flight = load->depth;

  for (long slot = 0; slot < load->depth; slot++) submit(queue, load, buffers, slot, &seed);
  while (in_flight) {
    int count =
        blkioq_do_io(queue, completions, 1, load->depth < kReap ? load->depth : kReap, NULL);
    check(count, "do_io");
    int go_on = now() < end;
    for (int i = 0; i < count; i++) {
      check(completions[i].ret, "request");
      in_flight--;
      worker->done++;
      if (go_on) {
        submit(queue, load, buffers, (long)(intptr_t)completions[i].user_data, &seed);
        in_flight++;
      }
    }
  }
  return NULL;
}

int main(int argc, char** argv) {
  if (argc != 9) {
    fprintf(stderr, "usage: blkload DRIVER PATH QUEUES DEPTH BYTES READ%% SECONDS SPAN_MIB\n");
    return 2;
  }
  int queues = atoi(argv[3]);
  struct load load = {.depth = atoi(argv[4]),
                      .bytes = atol(argv[5]),
                      .read_percent = atoi(argv[6]),
                      .seconds = atof(argv[7])};
  load.blocks = ((uint64_t)atol(argv[8]) << 20) / load.bytes;

  check(blkio_create(argv[1], &load.device), "create");
  check(blkio_set_str(load.device, "path", argv[2]), "path");
  check(blkio_connect(load.device), "connect");
  check(blkio_set_int(load.device, "num-queues", queues), "num-queues");
  check(blkio_start(load.device), "start");
  struct blkio_mem_region region;
  size_t size = ((size_t)queues * load.depth * load.bytes + 4095) & ~(size_t)4095;
  check(blkio_alloc_mem_region(load.device, &region, size), "memory");
  check(blkio_map_mem_region(load.device, &region), "map memory");
  load.buffers = region.addr;

  struct worker* workers = calloc(queues, sizeof *workers);
  double start = now();
  for (int i = 0; i < queues; i++) {
    workers[i] = (struct worker){.load = &load, .queue = i};
    check(-pthread_create(&workers[i].thread, NULL, run, &workers[i]), "thread");
  }
  uint64_t done = 0;
  for (int i = 0; i < queues; i++) {
    pthread_join(workers[i].thread, NULL);
    done += workers[i].done;
  }
  double elapsed = now() - start;
  printf("iops %.0f MB/s %.0f\n", done / elapsed, done * (double)load.bytes / elapsed / 1e6);
  return 0;
}
