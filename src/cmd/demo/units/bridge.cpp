// C++ over the C units: a graph of machines read from JSON, ordered, and written again.
#include "check.h"
#include "graph.h"
#include "hashmap.h"
#include "json.h"

#include <array>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

template <typename T, void (*Free)(T *)>
class Owned {
public:
    Owned() : value_{} {}
    ~Owned() { Free(&value_); }
    Owned(const Owned &) = delete;
    Owned &operator=(const Owned &) = delete;
    T *get() { return &value_; }
    const T *operator->() const { return &value_; }

private:
    T value_;
};

using Arena = Owned<arena, arena_free>;
using Buffer = Owned<buffer, buffer_free>;
using Names = Owned<hashmap, hashmap_free>;

class Network {
public:
    explicit Network(const std::string &source)
    {
        const json *tree = json_parse(memory_.get(), {source.data(), source.size()});
        const json *links = tree == nullptr ? nullptr : json_member(tree, "links");
        if (links == nullptr)
            throw std::invalid_argument("no links");
        graph_init(&graph_, GRAPH_NODES_MAX);
        for (const json *link = links->first; link != nullptr; link = link->next)
            add(*link);
    }

    std::optional<int> distance(const std::string &from, const std::string &to)
    {
        std::array<int, GRAPH_NODES_MAX> distances{};
        graph_distances(&graph_, number(from), distances.data());
        const int found = distances.at(static_cast<std::size_t>(number(to)));
        return found < 0 ? std::nullopt : std::optional<int>(found);
    }

    std::optional<std::vector<std::string>> order() const
    {
        std::array<int, GRAPH_NODES_MAX> places{};
        if (!graph_order(&graph_, places.data()))
            return std::nullopt;
        std::vector<std::string> out;
        for (const int place : places)
            if (static_cast<std::size_t>(place) < names_.size())
                out.push_back(names_[static_cast<std::size_t>(place)]);
        return out;
    }

private:
    void add(const json &link)
    {
        const json *from = json_member(&link, "from"), *to = json_member(&link, "to"), *ms = json_member(&link, "ms");
        if (from == nullptr || to == nullptr || ms == nullptr)
            throw std::invalid_argument("half a link");
        const auto name = [](const json *value) { return std::string(value->string.at, value->string.length); };
        if (!graph_add(&graph_, number(name(from)), number(name(to)), static_cast<int>(ms->number)))
            throw std::length_error("too many links");
    }

    int number(const std::string &name)
    {
        std::int64_t *place = hashmap_at(numbers_.get(), {name.data(), name.size()});
        if (place == nullptr)
            throw std::bad_alloc();
        if (*place == 0) {
            names_.push_back(name);
            *place = static_cast<std::int64_t>(names_.size());
        }
        return static_cast<int>(*place - 1);
    }

    Arena memory_;
    Names numbers_;
    std::vector<std::string> names_;
    graph graph_;
};

} // namespace

extern "C" int demo_check_bridge(void)
{
    Network network(R"({"links": [{"from": "laptop", "to": "tower", "ms": 4}, {"from": "tower", "to": "attic", "ms": 1},
                                  {"from": "laptop", "to": "attic", "ms": 9}]})");
    CHECK(network.distance("laptop", "attic") == 5 && !network.distance("attic", "laptop"));
    CHECK(network.order() == (std::vector<std::string>{"laptop", "tower", "attic"}));
    Network circle(R"({"links": [{"from": "a", "to": "b", "ms": 1}, {"from": "b", "to": "a", "ms": 1}]})");
    CHECK(!circle.order() && circle.distance("a", "a") == 0);
    for (const char *source : {"{}", "nonsense", R"({"links": [{"from": "a"}]})"}) {
        try {
            Network broken(source);
            return __LINE__;
        } catch (const std::invalid_argument &) {
        }
    }
    Arena memory;
    Buffer out;
    json_write(json_parse(memory.get(), text_of("[1, \"two\", null]")), out.get());
    CHECK(buffer_equals(out.get(), "[1,\"two\",null]") && out->length == 14);
    return 0;
}
