// SPDX-License-Identifier: Apache-2.0
//
// A cell is one short timed run of one way of doing one thing. It runs in a child process of its
// own, so that its CPU time, its io_uring workers and its failures belong to nobody else. Cells are
// cheap (0.1 to 0.3 s) and repeated in alternation with the other ways. The machine may be shared:
// each cell notes how much CPU time everybody else used meanwhile, and what is reported is the
// median over the quieter half of the cells.
//
// CPU time is RUSAGE_SELF of the child: threads and io_uring's `iou-wrk` threads are in it,
// kernel threads (journal, block completion, loop device) are not.

#pragma once

#include <charconv>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace ringdisk::bench {

// What one cell found. Trivially copyable: it travels through a pipe. A field that a cell does not
// measure stays negative.
struct Sample {
  int error = 0;           // errno of the first failed operation, 0 if none failed
  double per_second = 0;   // operations
  double cpus = 0;         // CPU seconds (user and system) per second
  double median_us = -1;   // from submission to completion, depth 1 only
  double p99_us = -1;      //
  double longest_us = -1;  //
  double submit_us = -1;   // longest time the loop was inside one call that submits
  double stalled = -1;     // share of time inside submissions longer than 1 ms, depth > 1 only
  double in_place = -1;    // share of operations that completed without waiting
  double workers = 0;      // `iou-wrk` threads alive at the end
  double others = 0;       // CPUs used, or stolen, by everybody else
};

// Sets `number` where `argument` is `name` (such as "--rounds=") and a number.
template <typename Number>
void parse_number(std::string_view argument, std::string_view name, Number& number) {
  if (!argument.starts_with(name)) return;
  std::from_chars(argument.data() + name.size(), argument.data() + argument.size(), number);
}

double now_seconds();
double cpu_seconds();       // of this process, all threads
int count_uring_workers();  // of this process

// Sorts `latencies_us` and fills the latency fields of `sample`.
void summarise_latency(std::vector<float>& latencies_us, Sample& sample);

// Runs `cell` in a child process. A child that dies gives error = ECHILD.
Sample run_in_child(const std::function<Sample()>& cell);

// Field by field, over the quieter half of the samples; the error of any sample that failed.
Sample median_of(std::vector<Sample> samples);

// Prints `sample` as the columns named by print_header, after `label`.
void print_header(const std::string& label);
void print_row(const std::string& label, const Sample& sample);

}  // namespace ringdisk::bench
