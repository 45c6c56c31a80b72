// A clock of events: what is due when, repeated and cancelled.
#include "check.h"

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

class Clock {
public:
    using Action = std::function<void()>;

    // Keeps an event alive: when it goes, the event is cancelled.
    class Handle {
    public:
        explicit Handle(std::shared_ptr<Action> action = nullptr) : action_(std::move(action)) {}
        void cancel() { action_.reset(); }
        bool active() const { return action_ != nullptr; }

    private:
        std::shared_ptr<Action> action_;
    };

    Handle after(milliseconds delay, Action action) { return add(delay, 0ms, std::move(action)); }
    Handle every(milliseconds period, Action action) { return add(period, period, std::move(action)); }

    void advance(milliseconds time)
    {
        const milliseconds until = now_ + time;
        while (!queue_.empty() && queue_.top().due <= until) {
            Event event = queue_.top();
            queue_.pop();
            const auto action = event.action.lock();
            if (!action)
                continue;
            now_ = event.due;
            (*action)();
            if (event.period > 0ms) {
                event.due += event.period;
                queue_.push(std::move(event));
            }
        }
        now_ = until;
    }

    milliseconds now() const { return now_; }

private:
    struct Event {
        milliseconds due, period;
        std::size_t number; // events of one time run in the order of their making
        std::weak_ptr<Action> action;
        bool operator<(const Event &other) const { return std::tie(other.due, other.number) < std::tie(due, number); }
    };

    Handle add(milliseconds delay, milliseconds period, Action action)
    {
        auto shared = std::make_shared<Action>(std::move(action));
        queue_.push({now_ + delay, period, next_++, shared});
        return Handle(std::move(shared));
    }

    milliseconds now_{0};
    std::size_t next_ = 0;
    std::priority_queue<Event> queue_;
};

} // namespace

extern "C" int demo_check_events(void)
{
    Clock clock;
    std::vector<std::string> log;
    const auto say = [&](const std::string &what) {
        return [&log, &clock, what] { log.push_back(std::to_string(clock.now().count()) + what); };
    };
    const auto a = clock.after(30ms, say("a")), b = clock.after(10ms, say("b")), c = clock.after(10ms, say("c"));
    auto beat = clock.every(20ms, say("+"));
    clock.after(5ms, say("never")); // its handle is gone at once
    clock.advance(25ms);
    CHECK(log == (std::vector<std::string>{"10b", "10c", "20+"}) && clock.now() == 25ms);
    Clock::Handle stop = clock.after(50ms, [&] { beat.cancel(); });
    clock.advance(1s);
    CHECK(log == (std::vector<std::string>{"10b", "10c", "20+", "30a", "40+", "60+"}));
    CHECK(!beat.active() && stop.active() && a.active() && b.active() && c.active());
    int depth = 0;
    std::map<int, Clock::Handle> kept;
    std::function<void()> again = [&] {
        if (++depth < 5)
            kept[depth] = clock.after(1ms * depth, again);
    };
    kept[0] = clock.after(0ms, again);
    clock.advance(9ms);
    CHECK(depth == 4);
    clock.advance(1ms);
    CHECK(depth == 5 && kept.size() == 5);
    return 0;
}
