"""Canaries: each weak part is shown to the checker that is to see it. With the real part the check is green; with the
weak one it is red, and for the reason that the part was made for; a canary that stays green has failed. Each also shows
that the weak part works where its protection isn't needed, so that it isn't red for being broken altogether."""
