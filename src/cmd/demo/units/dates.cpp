// Days of the Gregorian calendar, counted from 1970.
#include "check.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

namespace {

struct Date {
    std::int64_t year;
    unsigned month, day;

    friend constexpr bool operator==(const Date &a, const Date &b)
    {
        return a.year == b.year && a.month == b.month && a.day == b.day;
    }
};

// A year that begins in March has its leap day at its end: so months have lengths by one formula.
constexpr std::int64_t days_of(const Date &date)
{
    const std::int64_t year = date.year - (date.month <= 2);
    const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
    const auto year_of_era = static_cast<unsigned>(year - era * 400);
    const unsigned day_of_year = (153 * (date.month > 2 ? date.month - 3 : date.month + 9) + 2) / 5 + date.day - 1;
    const unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + static_cast<std::int64_t>(day_of_era) - 719468;
}

constexpr Date date_of(std::int64_t days)
{
    days += 719468;
    const std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    const auto day_of_era = static_cast<unsigned>(days - era * 146097);
    const unsigned year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const unsigned shifted = (5 * day_of_year + 2) / 153;
    const unsigned month = shifted < 10 ? shifted + 3 : shifted - 9;
    return {era * 400 + year_of_era + (month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1};
}

constexpr std::string_view weekday(const Date &date)
{
    constexpr std::array<std::string_view, 7> names = {"Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"};
    return names[static_cast<std::size_t>(((days_of(date) % 7) + 7) % 7)];
}

constexpr bool exists(const Date &date)
{
    return date.month >= 1 && date.month <= 12 && date.day >= 1 && date.day <= 31 && date_of(days_of(date)) == date;
}

// Gauss and Lichtenberg.
constexpr Date easter(std::int64_t year)
{
    const std::int64_t century = year / 100, moon = 15 + (3 * century + 3) / 4 - (8 * century + 13) / 25;
    const std::int64_t sun = 2 - (3 * century + 3) / 4, golden = year % 19;
    const std::int64_t full = (19 * golden + moon) % 30, fix = (full + golden / 11) / 29;
    const std::int64_t limit = 21 + full - fix, sunday = 7 - (year + year / 4 + sun) % 7;
    return date_of(days_of({year, 3, 1}) - 1 + limit + 7 - (limit - sunday) % 7);
}

std::optional<Date> parse(const std::string &text)
{
    Date date{};
    int year = 0, used = 0;
    if (std::sscanf(text.c_str(), "%4d-%2u-%2u%n", &year, &date.month, &date.day, &used) != 3 || used != 10)
        return std::nullopt;
    date.year = year;
    return text.size() == 10 && exists(date) ? std::optional<Date>(date) : std::nullopt;
}

static_assert(days_of({1970, 1, 1}) == 0 && days_of({2000, 3, 1}) == 11017, "while compiling");
static_assert(easter(2024) == Date{2024, 3, 31} && easter(1981) == Date{1981, 4, 19}, "Easter");

} // namespace

extern "C" int demo_check_dates(void)
{
    for (std::int64_t days = -1000000; days <= 1000000; days += 97)
        CHECK(days_of(date_of(days)) == days && exists(date_of(days)));
    CHECK(weekday({1970, 1, 1}) == "Thursday" && weekday({1582, 10, 15}) == "Friday" && weekday({2026, 2, 28}) == "Saturday");
    CHECK(parse("2024-02-29") == (Date{2024, 2, 29}) && !parse("2023-02-29") && !parse("1900-02-29"));
    CHECK(!parse("2024-13-01") && !parse("2024-1-01") && !parse("2024-01-01x") && !parse("yesterday"));
    int sundays = 0;
    for (std::int64_t year = 1900; year < 2100; ++year)
        sundays += weekday(easter(year)) == "Sunday";
    CHECK(sundays == 200 && (easter(2025) == Date{2025, 4, 20}) && (easter(2038) == Date{2038, 4, 25}));
    return 0;
}
