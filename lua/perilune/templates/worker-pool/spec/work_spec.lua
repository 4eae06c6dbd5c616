local work = require "work"

describe("the work", function()
  it("is to count primes", function()
    for most, count in pairs { ["0"] = "0", ["2"] = "1", ["10"] = "4", ["1000"] = "168" } do
      assert.equal(count, work.primes(most))
    end
  end)

  it("is to digest a text, the same way each time", function()
    assert.equal(work.digest "secret", work.digest "secret")
    assert.are_not.equal(work.digest "secret", work.digest "secreT")
    assert.equal(32, #work.digest "secret")
  end)

  it("has bounds, and says which", function()
    for _, text in ipairs { "", "x", "-1", "1.5", "1000001" } do
      assert.same({ nil, "a number up to 1000000, please" }, { work.primes(text) })
    end
  end)
end)
