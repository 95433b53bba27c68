// SPDX-License-Identifier: Apache-2.0
// Lists whose links live in their elements, and the seeded generator.
#include "base/intrusive.h"

#include <gtest/gtest.h>

#include <array>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "base/random.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

struct Element : ListLink {
  explicit Element(int n = 0) : number(n) {}
  int number;
};

std::vector<int> numbers_of(IntrusiveList<Element>& list) {
  std::vector<int> numbers;
  list.for_each([&numbers](Element& element) {
    numbers.push_back(element.number);
    return true;
  });
  return numbers;
}

TEST(IntrusiveListTest, KeepsTheOrderOfArrival) {
  Element a(1), b(2), c(3);
  IntrusiveList<Element> list;
  EXPECT_TRUE(list.empty());
  list.push_back(a);
  list.push_back(b);
  list.push_back(c);
  EXPECT_EQ(numbers_of(list), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(&list.front(), &a);
  EXPECT_EQ(&list.pop_front(), &a);
  EXPECT_FALSE(a.is_linked());
  list.push_back(a);
  EXPECT_EQ(numbers_of(list), (std::vector<int>{2, 3, 1}));
}

TEST(IntrusiveListTest, ElementsLeaveWhenTheyDieAndAreFreeWhenTheListDoes) {
  Element a(1);
  {
    IntrusiveList<Element> list;
    list.push_back(a);
    {
      Element gone(2);
      list.push_back(gone);
    }
    EXPECT_EQ(numbers_of(list), (std::vector<int>{1}));
  }
  EXPECT_FALSE(a.is_linked());
}

TEST(IntrusiveListTest, AWalkAllowsTheVisitedElementToLeaveAndMayStop) {
  std::array<Element, 5> elements;
  IntrusiveList<Element> list;
  for (int i = 0; i < 5; ++i) {
    elements[static_cast<size_t>(i)].number = i;
    list.push_back(elements[static_cast<size_t>(i)]);
  }
  int seen = 0;
  list.for_each([&seen](Element& element) {
    ++seen;
    if (element.number % 2 == 0) element.unlink();
    return element.number != 3;
  });
  EXPECT_EQ(seen, 4);
  EXPECT_EQ(numbers_of(list), (std::vector<int>{1, 3, 4}));
}

TEST(IntrusiveListTest, BehavesLikeAListUnderRandomUse) {
  sim::for_each_seed(50, [](uint64_t seed) {
    Random random(seed);
    std::vector<std::unique_ptr<Element>> elements;
    for (int i = 0; i < 20; ++i) elements.push_back(std::make_unique<Element>(i));
    IntrusiveList<Element> list;
    std::list<int> model;
    for (int i = 0; i < 300; ++i) {
      const size_t which = random.below(elements.size());
      Element& element = *elements[which];
      if (element.is_linked()) {
        element.unlink();
        model.remove(element.number);
      } else {
        list.push_back(element);
        model.push_back(element.number);
      }
      if (!model.empty() && random.chance(20)) {
        EXPECT_EQ(list.pop_front().number, model.front());
        model.pop_front();
      }
      EXPECT_EQ(numbers_of(list), std::vector<int>(model.begin(), model.end()));
    }
  });
}

TEST(IntrusiveListDeathTest, AnElementIsInOneListAtATime) {
  Element a(1);
  IntrusiveList<Element> list, other;
  list.push_back(a);
  EXPECT_DEATH(other.push_back(a), "CHECK failed");
  EXPECT_DEATH(static_cast<void>(other.front()), "CHECK failed");
}

// --- Random --------------------------------------------------------------------------------------

TEST(RandomTest, TheSameSeedGivesTheSameNumbersEverywhere) {
  // From the published reference implementation of SplitMix64 with seed 1234567.
  Random random(1234567);
  EXPECT_EQ(random.next(), 6457827717110365317u);
  EXPECT_EQ(random.next(), 3203168211198807973u);
  EXPECT_EQ(random.next(), 9817491932198370423u);
}

TEST(RandomTest, NumbersStayBelowTheirBoundAndReachAllOfIt) {
  Random random(1);
  std::array<int, 7> seen{};
  for (int i = 0; i < 7000; ++i) ++seen[random.below(7)];
  for (int count : seen) EXPECT_NEAR(count, 1000, 150);
  EXPECT_EQ(random.below(1), 0u);
  for (int i = 0; i < 100; ++i) EXPECT_LT(random.below(uint64_t{1} << 63), uint64_t{1} << 63);
  int hits = 0;
  for (int i = 0; i < 10000; ++i) hits += random.chance(30);
  EXPECT_NEAR(hits, 3000, 200);
  EXPECT_FALSE(random.chance(0));
  EXPECT_TRUE(random.chance(100));
}

}  // namespace
}  // namespace ringdisk
