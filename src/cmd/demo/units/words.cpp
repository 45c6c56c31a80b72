// Counts words and prints the most frequent as a table.
#include "check.h"

#include <algorithm>
#include <cctype>
#include <iomanip>
#include <iostream>
#include <istream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Counts = std::map<std::string, unsigned>;

std::string folded(std::string word)
{
    const auto is_mark = [](unsigned char c) { return std::ispunct(c) != 0; };
    word.erase(std::remove_if(word.begin(), word.end(), is_mark), word.end());
    std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return word;
}

Counts count(std::istream &in)
{
    Counts counts;
    for (auto word = std::istream_iterator<std::string>(in); word != std::istream_iterator<std::string>(); ++word)
        if (auto key = folded(*word); !key.empty())
            ++counts[std::move(key)];
    return counts;
}

std::vector<Counts::value_type> most_frequent(const Counts &counts, std::size_t most)
{
    std::vector<std::pair<std::string, unsigned>> order(counts.begin(), counts.end());
    const auto more = [](const auto &a, const auto &b) { return a.second != b.second ? a.second > b.second : a.first < b.first; };
    most = std::min(most, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(most), order.end(), more);
    order.resize(most);
    return {order.begin(), order.end()};
}

struct Table {
    const std::vector<Counts::value_type> &rows;
};

std::ostream &operator<<(std::ostream &out, const Table &table)
{
    std::size_t width = 0;
    for (const auto &[word, times] : table.rows)
        width = std::max(width, word.size());
    for (const auto &[word, times] : table.rows)
        out << std::left << std::setw(static_cast<int>(width)) << word << ' ' << std::right << std::setw(3) << times << ' '
            << std::string(times, '*') << '\n';
    return out;
}

} // namespace

extern "C" int demo_check_words(void)
{
    std::istringstream text("The laptop asks the desktop. The desktop, asked, compiles --\nand the laptop links; \"THE\" end.");
    const Counts counts = count(text);
    CHECK(counts.size() == 9 && counts.at("the") == 5 && counts.count("--") == 0);
    const auto rows = most_frequent(counts, 3);
    std::ostringstream out;
    out << Table{rows};
    CHECK(out.str() == "the       5 *****\ndesktop   2 **\nlaptop    2 **\n");
    std::istringstream nothing(" \n\t");
    CHECK(count(nothing).empty() && most_frequent({}, 3).empty());
    std::ostringstream precise;
    precise << std::fixed << std::setprecision(2) << 3.14159 << std::hex << std::showbase << std::setw(8) << std::setfill('.') << 255;
    CHECK(precise.str() == "3.14....0xff" && std::cout.good());
    return 0;
}
