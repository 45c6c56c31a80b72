#include "tree.hpp"

#include "check.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <string>

namespace {

struct ByLength {
    bool operator()(const std::string &a, const std::string &b) const
    {
        return a.size() != b.size() ? a.size() < b.size() : a < b;
    }
};

} // namespace

extern "C" int demo_check_tree(void)
{
    demo::Tree<int> tree;
    std::set<int> reference;
    unsigned random = 7;
    for (int i = 0; i < 2000; ++i) {
        random = random * 1103515245u + 12345u;
        const int item = static_cast<int>(random >> 16 & 0xfff);
        CHECK(tree.insert(item) == reference.insert(item).second);
    }
    CHECK(tree.size() == reference.size() && std::equal(tree.begin(), tree.end(), reference.begin(), reference.end()));
    std::size_t place = 0;
    for (const int item : reference) {
        CHECK(tree.rank(item) == place && tree.at(place) == item);
        ++place;
    }
    CHECK(std::accumulate(tree.begin(), tree.end(), 0L) == std::accumulate(reference.begin(), reference.end(), 0L));
    CHECK(std::is_sorted(tree.begin(), tree.end()) && !tree.contains(-1) && !tree.contains(5000));

    demo::Tree<std::string, ByLength> words;
    for (const char *word : {"compile", "a", "unit", "elsewhere", "or", "here", "a"})
        words.insert(word);
    std::string joined;
    for (auto word = words.begin(); word != words.end(); word++)
        joined += *word + (word->size() > 7 ? "." : " ");
    CHECK(joined == "a or here unit compile elsewhere.");
    CHECK(demo::Tree<int>().begin() == demo::Tree<int>().end());
    return 0;
}
