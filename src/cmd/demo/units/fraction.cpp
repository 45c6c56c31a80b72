// Exact fractions, also while compiling.
#include "check.h"

#include <cstdint>
#include <map>
#include <numeric>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

class Fraction {
public:
    constexpr Fraction(std::int64_t over = 0, std::int64_t under = 1) : over_(over), under_(under)
    {
        if (under_ == 0)
            throw std::domain_error("a fraction of nothing");
        const std::int64_t common = std::gcd(over_, under_) * (under_ < 0 ? -1 : 1);
        over_ /= common;
        under_ /= common;
    }

    constexpr std::int64_t over() const { return over_; }
    constexpr std::int64_t under() const { return under_; }

    friend constexpr Fraction operator+(Fraction a, Fraction b)
    {
        return {a.over_ * b.under_ + b.over_ * a.under_, a.under_ * b.under_};
    }
    friend constexpr Fraction operator-(Fraction a) { return {-a.over_, a.under_}; }
    friend constexpr Fraction operator-(Fraction a, Fraction b) { return a + -b; }
    friend constexpr Fraction operator*(Fraction a, Fraction b) { return {a.over_ * b.over_, a.under_ * b.under_}; }
    friend constexpr Fraction operator/(Fraction a, Fraction b) { return {a.over_ * b.under_, a.under_ * b.over_}; }
    friend constexpr bool operator==(Fraction a, Fraction b) { return a.over_ == b.over_ && a.under_ == b.under_; }
    friend constexpr bool operator<(Fraction a, Fraction b) { return a.over_ * b.under_ < b.over_ * a.under_; }
    friend std::ostream &operator<<(std::ostream &out, Fraction f)
    {
        out << f.over_;
        return f.under_ == 1 ? out : out << '/' << f.under_;
    }

private:
    std::int64_t over_, under_;
};

constexpr Fraction operator""_f(unsigned long long value)
{
    return Fraction(static_cast<std::int64_t>(value));
}

static_assert(1_f / 2_f + 1_f / 3_f == Fraction(5, 6), "while compiling");
static_assert(Fraction(-4, -6) == Fraction(2, 3) && Fraction(1, -2) < 0_f, "one form for each value");

// Bernoulli's numbers by their recurrence.
std::vector<Fraction> bernoulli(std::int64_t count)
{
    std::vector<Fraction> out{1_f};
    for (std::int64_t m = 1; m < count; ++m) {
        Fraction sum, binomial = 1_f;
        for (std::int64_t k = 0; k < m; ++k) {
            sum = sum + binomial * out[static_cast<std::size_t>(k)];
            binomial = binomial * Fraction(m + 1 - k, k + 1);
        }
        out.push_back(-sum / Fraction(m + 1));
    }
    return out;
}

template <typename T>
std::string written(const T &value)
{
    std::ostringstream out;
    out << value;
    return out.str();
}

} // namespace

extern "C" int demo_check_fraction(void)
{
    const auto numbers = bernoulli(17);
    const std::map<std::size_t, std::string> wanted = {{0, "1"}, {1, "-1/2"}, {2, "1/6"}, {3, "0"}, {10, "5/66"}, {12, "-691/2730"}, {16, "-3617/510"}};
    for (const auto &[index, text] : wanted)
        CHECK(written(numbers[index]) == text);
    const auto sum = std::accumulate(numbers.begin(), numbers.begin() + 5, Fraction());
    CHECK(sum == Fraction(19, 30) && sum.over() == 19 && sum.under() == 30);
    try {
        CHECK(1_f / (2_f - 2_f) == 0_f);
        return __LINE__;
    } catch (const std::domain_error &) {
        return 0;
    }
}
