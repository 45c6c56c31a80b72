// A cache that forgets what was not used for longest.
#include "check.h"

#include <cstddef>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

namespace {

template <typename Key, typename Value, typename Hash = std::hash<Key>>
class LruCache {
public:
    explicit LruCache(std::size_t most) : most_(most) {}

    std::optional<Value> get(const Key &key)
    {
        const auto found = places_.find(key);
        if (found == places_.end()) {
            ++misses_;
            return std::nullopt;
        }
        ++hits_;
        entries_.splice(entries_.begin(), entries_, found->second);
        return found->second->second;
    }

    void put(Key key, Value value)
    {
        if (const auto found = places_.find(key); found != places_.end()) {
            found->second->second = std::move(value);
            entries_.splice(entries_.begin(), entries_, found->second);
            return;
        }
        entries_.emplace_front(std::move(key), std::move(value));
        places_.emplace(entries_.front().first, entries_.begin());
        if (entries_.size() > most_) {
            places_.erase(entries_.back().first);
            entries_.pop_back();
        }
    }

    template <typename Make>
    Value get_or(const Key &key, Make &&make)
    {
        if (auto value = get(key))
            return *std::move(value);
        Value made = std::forward<Make>(make)(key);
        put(key, made);
        return made;
    }

    std::size_t size() const { return entries_.size(); }
    std::size_t hits() const { return hits_; }
    std::size_t misses() const { return misses_; }

private:
    using Entries = std::list<std::pair<Key, Value>>;

    std::size_t most_, hits_ = 0, misses_ = 0;
    Entries entries_;
    std::unordered_map<Key, typename Entries::iterator, Hash> places_;
};

struct Point {
    int x, y;
    bool operator==(const Point &other) const { return x == other.x && y == other.y; }
};

struct PointHash {
    std::size_t operator()(const Point &p) const { return std::hash<int>()(p.x) * 31 + std::hash<int>()(p.y); }
};

} // namespace

extern "C" int demo_check_lru(void)
{
    LruCache<std::string, int> ages(2);
    ages.put("anton", 40);
    ages.put("berta", 50);
    CHECK(ages.get("anton") == 40);
    ages.put("carla", 60);
    CHECK(!ages.get("berta") && ages.get("carla") == 60 && ages.size() == 2);
    ages.put("anton", 41);
    ages.put("dora", 70);
    CHECK(ages.get("anton") == 41 && !ages.get("carla") && ages.hits() == 3 && ages.misses() == 2);

    LruCache<Point, std::string, PointHash> names(16);
    int made = 0;
    const auto name = [&made](const Point &p) {
        ++made;
        return std::to_string(p.x) + "/" + std::to_string(p.y);
    };
    for (int round = 0; round < 3; ++round)
        for (int i = 0; i < 16; ++i)
            CHECK(names.get_or({i, -i}, name) == std::to_string(i) + "/" + std::to_string(-i));
    CHECK(made == 16 && names.size() == 16);
    return 0;
}
