// Templates over any number of types: folds, visits, a table of fields.
#include "check.h"

#include <array>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace {

template <typename... Parts>
std::string joined([[maybe_unused]] std::string_view between, const Parts &...parts)
{
    std::ostringstream out;
    std::size_t number = 0;
    ((out << (number++ > 0 ? between : std::string_view()) << parts), ...);
    return out.str();
}

template <typename Tuple, typename Act, std::size_t... Index>
void for_each(const Tuple &tuple, Act act, std::index_sequence<Index...>)
{
    (act(Index, std::get<Index>(tuple)), ...);
}

template <typename... Items, typename Act>
void for_each(const std::tuple<Items...> &tuple, Act act)
{
    for_each(tuple, act, std::index_sequence_for<Items...>{});
}

// A structure as a list of its fields: name and member.
template <typename Owner, typename Type>
struct Field {
    const char *name;
    Type Owner::*member;
};
template <typename Owner, typename Type>
Field(const char *, Type Owner::*) -> Field<Owner, Type>;

struct Peer {
    std::string name;
    unsigned slots = 0;
    double load = 0;
    std::vector<int> ports;

    static constexpr auto fields()
    {
        return std::make_tuple(Field{"name", &Peer::name}, Field{"slots", &Peer::slots}, Field{"load", &Peer::load}, Field{"ports", &Peer::ports});
    }
};

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

template <typename T>
std::string shown(const T &value)
{
    if constexpr (std::is_convertible_v<T, std::string_view>) {
        return '"' + std::string(value) + '"';
    } else if constexpr (IsVector<T>::value) {
        std::string out = "[";
        for (const auto &item : value)
            out += (out.size() > 1 ? " " : "") + shown(item);
        return out + "]";
    } else {
        return joined("", value);
    }
}

template <typename Owner>
std::string described(const Owner &owner)
{
    std::string out;
    for_each(Owner::fields(), [&](std::size_t index, const auto &field) {
        out += (index > 0 ? ", " : "") + joined("=", field.name, shown(owner.*field.member));
    });
    return out;
}

template <typename... Types>
constexpr std::size_t total_size = (sizeof(Types) + ... + 0);

template <std::size_t... Numbers>
constexpr auto squares(std::index_sequence<Numbers...>)
{
    return std::array<std::size_t, sizeof...(Numbers)>{Numbers * Numbers...};
}

static_assert(total_size<> == 0 && total_size<std::uint8_t, std::uint32_t> == 5, "folds have a beginning");
static_assert(squares(std::make_index_sequence<10>())[7] == 49, "while compiling");

} // namespace

extern "C" int demo_check_tuples(void)
{
    CHECK(joined(", ", 1, "two", '3', 4.5) == "1, two, 3, 4.5" && joined("-").empty());
    const Peer tower{"tower", 24, 0.5, {6374, 5353}};
    CHECK(described(tower) == "name=\"tower\", slots=24, load=0.5, ports=[6374 5353]");
    CHECK(described(Peer{}) == "name=\"\", slots=0, load=0, ports=[]");
    std::string types;
    for_each(std::make_tuple(1, 'c', std::string("s"), nullptr), [&types](std::size_t index, const auto &item) {
        using Item = std::decay_t<decltype(item)>;
        types += std::to_string(index) + (std::is_integral_v<Item> ? "i" : std::is_class_v<Item> ? "c" : "n");
    });
    CHECK(types == "0i1i2c3n");
    std::vector<std::variant<int, std::string>> mixed = {1, "a", 2};
    int sum = 0;
    for (const auto &item : mixed)
        sum += std::visit([](const auto &value) { return std::is_same_v<std::decay_t<decltype(value)>, int> ? 10 : 1; }, item);
    CHECK(sum == 21);
    return 0;
}
