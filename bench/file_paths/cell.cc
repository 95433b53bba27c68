// SPDX-License-Identifier: Apache-2.0
//
// Forking, counting and printing for bench/file_paths; the contracts are in cell.h.

#include "cell.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace ringdisk::bench {

namespace {

double seconds_of(const rusage& usage) {
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

double now_seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return seconds_of(usage);
}

int count_uring_workers() {
  int workers = 0;
  std::error_code ignored;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
    std::ifstream comm(task.path() / "comm");
    std::string name;
    std::getline(comm, name);
    workers += name.starts_with("iou-wrk") ? 1 : 0;
  }
  return workers;
}

void summarise_latency(std::vector<float>& latencies_us, Sample& sample) {
  if (latencies_us.empty()) return;
  std::sort(latencies_us.begin(), latencies_us.end());
  const size_t count = latencies_us.size();
  sample.median_us = latencies_us[count / 2];
  sample.p99_us = latencies_us[count * 99 / 100];
  sample.longest_us = latencies_us.back();
}

namespace {

// CPU seconds of the whole machine that were not idle, since it started.
double busy_seconds() {
  std::ifstream stat("/proc/stat");
  std::string cpu;
  stat >> cpu;
  double busy = 0;
  for (int field = 0; field < 8; ++field) {
    double ticks = 0;
    stat >> ticks;
    const bool idle = field == 3 || field == 4;  // idle, waiting for I/O
    if (!idle) busy += ticks;
  }
  return busy / static_cast<double>(sysconf(_SC_CLK_TCK));
}

double children_cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  return seconds_of(usage);
}

}  // namespace

Sample run_in_child(const std::function<Sample()>& cell) {
  Sample sample;
  sample.error = ECHILD;
  int ends[2];
  if (pipe(ends) != 0) return sample;
  std::fflush(stdout);
  const double start = now_seconds();
  const double others_start = busy_seconds() - children_cpu_seconds();
  const pid_t child = fork();
  if (child == 0) {
    const Sample found = cell();
    const bool sent = write(ends[1], &found, sizeof found) == sizeof found;
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  if (child > 0) {
    Sample found;
    if (read(ends[0], &found, sizeof found) == sizeof found) sample = found;
    waitpid(child, nullptr, 0);
  }
  const double others = busy_seconds() - children_cpu_seconds() - others_start;
  sample.others = others / (now_seconds() - start);
  close(ends[0]);
  return sample;
}

Sample median_of(std::vector<Sample> samples) {
  int error = 0;
  for (const Sample& sample : samples) {
    if (sample.error != 0) error = sample.error;
  }
  std::sort(samples.begin(), samples.end(),
            [](const Sample& a, const Sample& b) { return a.others < b.others; });
  samples.resize((samples.size() + 1) / 2);
  const auto median = [&samples](double Sample::*field) {
    std::vector<double> values;
    for (const Sample& sample : samples) values.push_back(sample.*field);
    std::sort(values.begin(), values.end());
    return values.empty() ? -1.0 : values[values.size() / 2];
  };
  Sample result;
  for (double Sample::*field :
       {&Sample::per_second, &Sample::cpus, &Sample::median_us, &Sample::p99_us,
        &Sample::longest_us, &Sample::submit_us, &Sample::stalled, &Sample::in_place,
        &Sample::workers, &Sample::others}) {
    result.*field = median(field);
  }
  result.error = error;
  return result;
}

void print_header(const std::string& label) {
  std::printf("%-54s %9s %5s %8s %8s %8s %8s %7s %6s %6s %5s %6s\n", label.c_str(), "thousand",
              "CPUs", "CPU us", "median", "p99", "longest", "submit", "stall-", "in", "work-",
              "other");
  std::printf("%-54s %9s %5s %8s %8s %8s %8s %7s %6s %6s %5s %6s\n", "", "a second", "used", "each",
              "us", "us", "us", "max us", "ed", "place", "ers", "CPUs");
}

void print_row(const std::string& label, const Sample& sample) {
  if (sample.error != 0) {
    std::printf("%-54s %s\n", label.c_str(), std::strerror(sample.error));
    return;
  }
  const auto number = [](double value, int digits) {
    char text[32] = "";
    if (value >= 0) std::snprintf(text, sizeof text, "%.*f", digits, value);
    return std::string(text);
  };
  const double cpu_us = sample.per_second > 0 ? sample.cpus / sample.per_second * 1e6 : -1;
  std::printf("%-54s %9s %5s %8s %8s %8s %8s %7s %6s %6s %5s %6s\n", label.c_str(),
              number(sample.per_second / 1e3, 2).c_str(), number(sample.cpus, 2).c_str(),
              number(cpu_us, 2).c_str(), number(sample.median_us, 2).c_str(),
              number(sample.p99_us, 2).c_str(), number(sample.longest_us, 0).c_str(),
              number(sample.submit_us, 0).c_str(), number(sample.stalled, 2).c_str(),
              number(sample.in_place, 2).c_str(), number(sample.workers, 0).c_str(),
              number(sample.others, 2).c_str());
}

}  // namespace ringdisk::bench
