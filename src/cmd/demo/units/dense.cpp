// Matrices whose sizes are types, with lazy sums.
#include "check.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace {

template <typename Derived>
struct Lazy {
    const Derived &self() const { return static_cast<const Derived &>(*this); }
};

template <typename T, std::size_t Rows, std::size_t Columns>
class Dense : public Lazy<Dense<T, Rows, Columns>> {
public:
    using Value = T;
    static constexpr std::size_t rows = Rows, columns = Columns;

    constexpr Dense() : cells_{} {}
    constexpr explicit Dense(const std::array<T, Rows * Columns> &cells) : cells_(cells) {}
    template <typename Other>
    Dense(const Lazy<Other> &other) : cells_{}
    {
        static_assert(Other::rows == Rows && Other::columns == Columns, "sizes must agree");
        for (std::size_t r = 0; r < Rows; ++r)
            for (std::size_t c = 0; c < Columns; ++c)
                (*this)(r, c) = other.self()(r, c);
    }

    constexpr T operator()(std::size_t r, std::size_t c) const { return cells_[r * Columns + c]; }
    constexpr T &operator()(std::size_t r, std::size_t c) { return cells_[r * Columns + c]; }
    constexpr bool operator==(const Dense &other) const
    {
        for (std::size_t i = 0; i < cells_.size(); ++i)
            if (cells_[i] != other.cells_[i])
                return false;
        return true;
    }

    static constexpr Dense identity()
    {
        static_assert(Rows == Columns, "only a square has an identity");
        Dense out;
        for (std::size_t i = 0; i < Rows; ++i)
            out(i, i) = 1;
        return out;
    }

private:
    std::array<T, Rows * Columns> cells_;
};

template <typename Left, typename Right>
class Sum : public Lazy<Sum<Left, Right>> {
public:
    using Value = std::common_type_t<typename Left::Value, typename Right::Value>;
    static constexpr std::size_t rows = Left::rows, columns = Left::columns;
    static_assert(rows == Right::rows && columns == Right::columns, "sizes must agree");

    Sum(const Left &left, const Right &right) : left_(left), right_(right) {}
    Value operator()(std::size_t r, std::size_t c) const { return left_(r, c) + right_(r, c); }

private:
    const Left &left_;
    const Right &right_;
};

template <typename Left, typename Right>
Sum<Left, Right> operator+(const Lazy<Left> &left, const Lazy<Right> &right)
{
    return {left.self(), right.self()};
}

template <typename T, std::size_t R, std::size_t K, std::size_t C>
constexpr Dense<T, R, C> operator*(const Dense<T, R, K> &left, const Dense<T, K, C> &right)
{
    Dense<T, R, C> out;
    for (std::size_t r = 0; r < R; ++r)
        for (std::size_t c = 0; c < C; ++c)
            for (std::size_t k = 0; k < K; ++k)
                out(r, c) += left(r, k) * right(k, c);
    return out;
}

template <typename T, std::size_t N>
constexpr Dense<T, N, N> power(Dense<T, N, N> base, unsigned exponent)
{
    auto out = Dense<T, N, N>::identity();
    for (; exponent > 0; exponent /= 2, base = base * base)
        if (exponent % 2 == 1)
            out = out * base;
    return out;
}

// Fibonacci's numbers, while compiling.
constexpr Dense<std::uint64_t, 2, 2> fibonacci_step({1, 1, 1, 0});
static_assert(power(fibonacci_step, 50)(0, 1) == 12586269025u, "the fiftieth");

} // namespace

extern "C" int demo_check_dense(void)
{
    const Dense<int, 2, 3> a({1, 2, 3, 4, 5, 6});
    const Dense<int, 3, 2> b({7, 8, 9, 10, 11, 12});
    CHECK(a * b == (Dense<int, 2, 2>({58, 64, 139, 154})));
    CHECK((b * a)(2, 2) == 105);
    const Dense<int, 2, 3> twice = a + a, more = a + twice + a;
    CHECK(twice(1, 2) == 12 && more(0, 1) == 8);
    const Dense<double, 2, 3> mixed = a + Dense<double, 2, 3>({.5, .5, .5, .5, .5, .5});
    CHECK(mixed(1, 0) > 4.4 && mixed(1, 0) < 4.6);
    CHECK(power(fibonacci_step, 90)(0, 1) == 2880067194370816120u);
    return 0;
}
