// The algorithms of the standard library, put to puzzles.
#include "check.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace {

// Queens that do not attack each other: a column for each row, diagonals by differences.
template <std::size_t Side>
int queens()
{
    std::array<int, Side> column{};
    std::iota(column.begin(), column.end(), 0);
    int solutions = 0;
    do {
        std::bitset<2 * Side> rising, falling;
        for (std::size_t row = 0; row < Side; ++row) {
            rising.set(row + static_cast<std::size_t>(column[row]));
            falling.set(row + Side - static_cast<std::size_t>(column[row]));
        }
        solutions += rising.count() == Side && falling.count() == Side;
    } while (std::next_permutation(column.begin(), column.end()));
    return solutions;
}

// Groups words that are made of the same letters.
std::vector<std::vector<std::string>> anagrams(std::vector<std::string> words)
{
    const auto key = [](std::string word) {
        std::sort(word.begin(), word.end());
        return word;
    };
    std::stable_sort(words.begin(), words.end(), [&](const auto &a, const auto &b) { return key(a) < key(b); });
    std::vector<std::vector<std::string>> out;
    for (auto first = words.begin(); first != words.end();) {
        const auto last = std::find_if(first, words.end(), [&](const auto &word) { return key(word) != key(*first); });
        if (std::distance(first, last) > 1)
            out.emplace_back(first, last);
        first = last;
    }
    return out;
}

// The longest rising run that is left when others are struck out.
std::size_t longest_rising(const std::vector<int> &values)
{
    std::vector<int> ends;
    for (const int value : values) {
        const auto place = std::lower_bound(ends.begin(), ends.end(), value);
        if (place == ends.end())
            ends.push_back(value);
        else
            *place = value;
    }
    return ends.size();
}

std::size_t edit_distance(const std::string &from, const std::string &to)
{
    std::vector<std::size_t> row(to.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 1; i <= from.size(); ++i) {
        std::size_t corner = std::exchange(row[0], i);
        for (std::size_t j = 1; j <= to.size(); ++j) {
            const std::size_t above = row[j];
            row[j] = std::min({above + 1, row[j - 1] + 1, corner + (from[i - 1] != to[j - 1])});
            corner = above;
        }
    }
    return row.back();
}

} // namespace

extern "C" int demo_check_permute(void)
{
    CHECK(queens<4>() == 2 && queens<6>() == 4 && queens<8>() == 92);
    const auto groups = anagrams({"listen", "mesh", "silent", "hems", "enlist", "alone"});
    CHECK(groups.size() == 2 && groups[1] == (std::vector<std::string>{"listen", "silent", "enlist"}));
    CHECK(longest_rising({10, 9, 2, 5, 3, 7, 101, 18}) == 4 && longest_rising({}) == 0);
    CHECK(edit_distance("compiler", "complier") == 2 && edit_distance("", "abc") == 3);
    std::vector<int> deck(52);
    std::iota(deck.begin(), deck.end(), 0);
    std::mt19937 random(2024);
    std::shuffle(deck.begin(), deck.end(), random);
    CHECK(std::unordered_set<int>(deck.begin(), deck.end()).size() == 52);
    const auto middle = deck.begin() + 26;
    std::nth_element(deck.begin(), middle, deck.end());
    CHECK(*middle == 26 && std::all_of(deck.begin(), middle, [](int card) { return card < 26; }));
    std::rotate(deck.begin(), middle, deck.end());
    CHECK(*std::min_element(deck.begin(), deck.begin() + 26) == 26);
    std::set<int> odd, large, both;
    for (int i = 0; i < 20; ++i) {
        if (i % 2 == 1)
            odd.insert(i);
        if (i > 14)
            large.insert(i);
    }
    std::set_intersection(odd.begin(), odd.end(), large.begin(), large.end(), std::inserter(both, both.end()));
    CHECK(both == (std::set<int>{15, 17, 19}) && std::includes(odd.begin(), odd.end(), both.begin(), both.end()));
    return 0;
}
