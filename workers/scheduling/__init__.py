"""When runs begin by themselves: schedules, their rules, their calendar."""
