#include "pool.hpp"

#include "check.h"

#include <atomic>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>

namespace demo {

Pool::Pool(std::size_t threads)
{
    threads_.reserve(threads);
    for (std::size_t i = 0; i < threads; ++i)
        threads_.emplace_back([this] { serve(); });
}

Pool::~Pool()
{
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        ending_ = true;
    }
    changed_.notify_all();
    for (auto &thread : threads_)
        thread.join();
}

void Pool::enqueue(std::function<void()> work)
{
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        queue_.push_back(std::move(work));
    }
    changed_.notify_one();
}

void Pool::serve()
{
    for (;;) {
        std::function<void()> work;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            changed_.wait(lock, [this] { return ending_ || !queue_.empty(); });
            if (queue_.empty())
                return;
            work = std::move(queue_.front());
            queue_.pop_front();
        }
        work();
    }
}

namespace {

std::uint64_t count_primes(std::uint64_t from, std::uint64_t to)
{
    std::uint64_t count = 0;
    for (std::uint64_t n = from < 2 ? 2 : from; n < to; ++n) {
        bool prime = true;
        for (std::uint64_t d = 2; prime && d * d <= n; ++d)
            prime = n % d != 0;
        count += prime;
    }
    return count;
}

} // namespace

} // namespace demo

extern "C" int demo_check_pool(void)
{
    std::atomic<int> done{0};
    {
        demo::Pool pool(3);
        std::vector<std::future<std::uint64_t>> parts;
        for (std::uint64_t part = 0; part < 20; ++part)
            parts.push_back(pool.run([part] { return demo::count_primes(part * 500, (part + 1) * 500); }));
        std::vector<std::uint64_t> counts;
        for (auto &part : parts)
            counts.push_back(part.get());
        CHECK(std::accumulate(counts.begin(), counts.end(), std::uint64_t{0}) == 1229);

        auto failing = pool.run([]() -> std::string { throw std::runtime_error("no such machine"); });
        bool thrown = false;
        try {
            failing.get();
        } catch (const std::runtime_error &error) {
            thrown = std::string(error.what()) == "no such machine";
        }
        CHECK(thrown);
        for (int i = 0; i < 50; ++i)
            pool.run([&done] { ++done; });
    }
    CHECK(done == 50); // what was queued is done before the pool ends
    return 0;
}
